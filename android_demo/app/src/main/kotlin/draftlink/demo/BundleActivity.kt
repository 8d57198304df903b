package draftlink.demo

import android.os.Bundle
import android.text.format.Formatter
import android.widget.ProgressBar
import android.widget.TextView
import android.widget.Toast
import draftlink.app.BundleState
import draftlink.app.Source
import draftlink.transport.LinkException
import kotlinx.coroutines.CoroutineScope

/** Fetching the draft: from the base station, or a folder on the phone. */
class BundleActivity : Screen() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.bundle)
        onClick(R.id.ask) { from { app.bundles.ask(it) } }
        onClick(R.id.take) {
            from {
                app.bundles.take(it)
                WorkService.start(this)
            }
        }
        onClick(R.id.stop) { app.bundles.stop() }
        onClick(R.id.folder) {
            val folder = app.folder
            if (folder?.list().isNullOrEmpty()) say(getString(R.string.folder_empty, folder)) else app.bundles.copy(folder)
        }
    }

    private fun from(what: (Source) -> Unit) {
        val source = try {
            app.source()
        } catch (error: LinkException) {
            return say(error.message.orEmpty())
        }
        if (source == null) say(getString(R.string.nothing_joined)) else what(source)
    }

    private fun say(text: String) = Toast.makeText(this, text, Toast.LENGTH_LONG).show()

    override fun CoroutineScope.shown() {
        show(app.bundles.state) { state -> draw(state) }
        showWay()
    }

    private fun draw(state: BundleState) {
        val size = { bytes: Long -> Formatter.formatFileSize(this@BundleActivity, bytes) }
        findViewById<TextView>(R.id.said).text = when (state) {
            is BundleState.Missing -> getString(R.string.bundle_missing)
            is BundleState.Asking -> getString(R.string.bundle_asking)
            is BundleState.Offered -> getString(R.string.bundle_offered, state.name, size(state.bytes))
            is BundleState.Coming -> getString(R.string.bundle_coming, state.name, size(state.have), size(state.bytes))
            is BundleState.Ready -> getString(R.string.bundle_ready, state.name) +
                if (state.chat) "" else "\n" + getString(R.string.bundle_plain)
            is BundleState.Failed -> state.why
        }
        val coming = state as? BundleState.Coming
        val busy = coming != null || state is BundleState.Asking
        findViewById<ProgressBar>(R.id.progress).apply {
            isIndeterminate = coming == null || coming.bytes == 0L
            max = PARTS
            progress = if (coming == null || coming.bytes == 0L) 0 else (PARTS * coming.have / coming.bytes).toInt()
        }
        visible(R.id.progress, busy)
        visible(R.id.stop, busy)
        visible(R.id.ask, !busy)
        visible(R.id.folder, !busy)
        visible(R.id.take, state is BundleState.Offered || (state is BundleState.Failed && state.again))
    }

    private companion object {
        const val PARTS = 1000
    }
}
