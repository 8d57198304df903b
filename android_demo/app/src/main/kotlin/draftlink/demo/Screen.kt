package draftlink.demo

import android.app.Activity
import android.content.Intent
import android.view.View
import android.widget.Button
import draftlink.app.Next
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.launch

/** A screen: it shows states of view models while it is seen. */
abstract class Screen : Activity() {
    protected val app: DemoApp get() = application as DemoApp
    private var seen: Job? = null

    /** What is shown while the screen is. */
    protected abstract fun CoroutineScope.shown()

    override fun onStart() {
        super.onStart()
        seen = app.scope.launch { shown() }
    }

    override fun onStop() {
        seen?.cancel()
        super.onStop()
    }

    protected fun <T> CoroutineScope.show(states: Flow<T>, how: (T) -> Unit) {
        launch { states.collect { how(it) } }
    }

    /** The button that leads to where a person goes on, if that is another screen. */
    protected fun CoroutineScope.showWay() = show(app.guide.next) { next ->
        val (screen, words) = when (next) {
            Next.JOIN -> JoinActivity::class.java to R.string.next_join
            Next.FETCH -> BundleActivity::class.java to R.string.next_fetch
            Next.WAIT -> BundleActivity::class.java to R.string.next_wait
            Next.CHAT -> ChatActivity::class.java to R.string.next_chat
        }
        findViewById<Button>(R.id.guide).setText(words)
        onClick(R.id.guide) { startActivity(Intent(this@Screen, screen).addFlags(Intent.FLAG_ACTIVITY_CLEAR_TOP or Intent.FLAG_ACTIVITY_SINGLE_TOP)) }
        visible(R.id.guide, screen != this@Screen.javaClass)
    }

    protected fun onClick(id: Int, what: () -> Unit) = findViewById<Button>(id).setOnClickListener { what() }

    protected fun visible(id: Int, whether: Boolean) {
        findViewById<View>(id).visibility = if (whether) View.VISIBLE else View.GONE
    }
}
