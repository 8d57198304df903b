package draftlink.demo

import android.app.Activity
import android.view.View
import android.widget.Button
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.StateFlow
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

    protected fun <T> CoroutineScope.show(states: StateFlow<T>, how: (T) -> Unit) {
        launch { states.collect { how(it) } }
    }

    protected fun onClick(id: Int, what: () -> Unit) = findViewById<Button>(id).setOnClickListener { what() }

    protected fun visible(id: Int, whether: Boolean) {
        findViewById<View>(id).visibility = if (whether) View.VISIBLE else View.GONE
    }
}
