package draftlink.demo

import android.Manifest
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.Menu
import android.view.MenuItem
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.ScrollView
import android.widget.TextView
import draftlink.app.ChatState
import draftlink.app.Numbers
import draftlink.app.Phase
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.launch

/** The chat. */
class ChatActivity : Screen() {
    private val texts by lazy { ChatText(this) }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.chat)
        findViewById<TextView>(R.id.legend).text = texts.legend()
        onClick(R.id.send) { if (app.chat.state.value.phase == Phase.RESTING) send() else app.chat.stop() }
    }

    private fun send() {
        val message = findViewById<EditText>(R.id.message)
        if (!app.chat.send(message.text.toString())) return
        message.setText("")
        // Without it the work is the same, but the system shows nothing of it.
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        WorkService.start(this)
    }

    override fun CoroutineScope.shown() {
        show(app.chat.state) { state -> draw(state) }
        showWay()
    }

    private fun draw(state: ChatState) {
        val scroll = findViewById<ScrollView>(R.id.scroll)
        val lines = findViewById<TextView>(R.id.lines)
        // Who has scrolled up to read is left there.
        val below = lines.bottom <= scroll.scrollY + scroll.height + NEAR
        lines.text = texts.of(state.lines)
        lines.contentDescription = texts.described(state.lines)
        if (below) scroll.post { scroll.fullScroll(View.FOCUS_DOWN) }
        findViewById<TextView>(R.id.link).text = if (state.phase == Phase.OPENING) getString(R.string.opening) else Numbers.link(state)
        findViewById<TextView>(R.id.numbers).text = Numbers.of(state, app.power.now()).joinToString("\n")
        findViewById<TextView>(R.id.notice).text = state.notice ?: getString(R.string.plain)
        visible(R.id.notice, state.notice != null || state.plain)
        findViewById<Button>(R.id.send).apply {
            setText(if (state.phase == Phase.RESTING) R.string.send else R.string.stop)
            isEnabled = state.phase != Phase.STOPPING
        }
    }

    override fun onCreateOptionsMenu(menu: Menu): Boolean {
        for (name in listOf(R.string.join, R.string.bundle, R.string.settings, R.string.clear)) menu.add(0, name, 0, name)
        return true
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        when (item.itemId) {
            R.string.join -> go(JoinActivity::class.java)
            R.string.bundle -> go(BundleActivity::class.java)
            R.string.settings -> go(SettingsActivity::class.java)
            R.string.clear -> {
                app.chat.clear()
                app.scope.launch { app.save(app.chat.state.value) }
            }
            else -> return super.onOptionsItemSelected(item)
        }
        return true
    }

    private fun go(screen: Class<*>) = startActivity(Intent(this, screen))

    private companion object {
        const val NEAR = 48 // pixels above the end that count as there
    }
}
