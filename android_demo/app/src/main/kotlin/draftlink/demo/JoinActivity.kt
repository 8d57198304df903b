package draftlink.demo

import android.content.Intent
import android.os.Bundle
import android.widget.EditText
import android.widget.Switch
import android.widget.TextView
import draftlink.app.JoinState
import kotlinx.coroutines.CoroutineScope

/** Joining a base station: by a link, which the camera read, or by what is typed. */
class JoinActivity : Screen() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.join)
        val joins = app.joins
        onClick(R.id.accept) { if (joins.accept()) app.joined() }
        onClick(R.id.decline) { joins.decline() }
        onClick(R.id.leave) { joins.leave().also { app.chat.renew() } }
        onClick(R.id.ask) { joins.type(text(R.id.address), text(R.id.token)) }
        findViewById<Switch>(R.id.clear).setOnCheckedChangeListener { _, on -> joins.allowClear(on) }
        // Turned round, the same intent is there again, and what it asked has been answered or is still asked.
        if (savedInstanceState == null) opened(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        opened(intent)
    }

    private fun opened(intent: Intent) {
        intent.data?.let { app.joins.open(it.toString()) }
        intent.data = null // its token stays in no list of tasks
    }

    private fun text(id: Int) = findViewById<EditText>(id).text.toString()

    override fun CoroutineScope.shown() {
        show(app.joins.state) { state -> draw(state) }
        showWay()
    }

    private fun draw(state: JoinState) {
        val asked = state as? JoinState.Asked
        findViewById<TextView>(R.id.said).text = when (state) {
            is JoinState.Nothing -> getString(R.string.nothing_joined)
            is JoinState.Wrong -> state.why
            is JoinState.Joined -> getString(R.string.joined, state.host)
            is JoinState.Asked -> listOfNotNull(
                getString(R.string.ask_join, state.host), state.replaces?.let { getString(R.string.replaces, it) },
            ).joinToString("\n")
        }
        val secure = asked?.secure ?: (state as? JoinState.Joined)?.secure
        val how = when {
            secure == null -> null
            asked?.pinned == true -> R.string.is_pinned
            secure -> R.string.is_secure
            else -> R.string.is_clear
        }
        findViewById<TextView>(R.id.how).text = how?.let { getString(it) }.orEmpty()
        findViewById<Switch>(R.id.clear).isChecked = asked?.clear == true
        visible(R.id.clear, asked != null && (asked.blocked || asked.clear))
        visible(R.id.accept, asked != null && !asked.blocked)
        visible(R.id.decline, asked != null || state is JoinState.Wrong)
        visible(R.id.leave, state is JoinState.Joined)
        for (id in listOf(R.id.address, R.id.token, R.id.ask)) visible(id, asked == null)
    }
}
