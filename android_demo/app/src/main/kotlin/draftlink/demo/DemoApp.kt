package draftlink.demo

import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.os.Handler
import android.os.Looper
import draftlink.app.BundleModel
import draftlink.app.BundleState
import draftlink.app.ChatModel
import draftlink.app.ChatState
import draftlink.app.Engine
import draftlink.app.Guide
import draftlink.app.JoinModel
import draftlink.app.Phase
import draftlink.app.SettingsModel
import draftlink.app.Source
import draftlink.app.Talk
import draftlink.model.BundleException
import draftlink.model.Provider
import draftlink.pull.Pull
import draftlink.pull.Station
import draftlink.transport.LinkException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import java.io.File
import java.io.IOException
import java.util.concurrent.Executor

/** What outlives a screen: the view models, and the draft. */
class DemoApp : Application() {
    // kotlinx-coroutines' own would be one dependency more.
    private val handler by lazy { Handler(Looper.getMainLooper()) }
    private val main by lazy { Executor { handler.post(it) }.asCoroutineDispatcher() }
    val scope by lazy { CoroutineScope(SupervisorJob() + main) }
    private val engine = Engine()

    val power by lazy { PowerReader(this) }
    val joins by lazy { JoinModel(StoredJoin(getSharedPreferences("join", Context.MODE_PRIVATE))) }
    val bundles by lazy { BundleModel(scope, File(filesDir, "bundle")) }
    val settings by lazy {
        val file = getSharedPreferences("settings", Context.MODE_PRIVATE)
        SettingsModel(StoredSettings(file), Runtime.getRuntime().availableProcessors(), Provider.available())
    }
    val chat by lazy { ChatModel(scope, ChatState.restored(saved())) { open() } }
    val guide by lazy { Guide(joins, bundles, chat) }

    /** Where a bundle may be copied to, as by `adb push`. */
    val folder: File? get() = getExternalFilesDir("bundle")

    override fun onCreate() {
        super.onCreate()
        bundles.look()
        scope.launch { bundles.state.collect { if (it is BundleState.Ready) chat.renew() } }
        scope.launch {
            var writing = false
            chat.state.collect { state ->
                // What is certain outlives the process, each time that an answer ends.
                if (writing && state.phase == Phase.RESTING) save(state)
                writing = state.phase != Phase.RESTING
            }
        }
    }

    /** What the base station that is joined offers; null where none is. Throws LinkException. */
    fun source(): Source? = joins.joined?.let { Source.Of(Pull(Station(it.url, it.token, it.pin, clear = !it.secure))) }

    private suspend fun open(): Talk {
        val invitation = joins.joined ?: throw LinkException(getString(R.string.nothing_joined))
        val bundle = bundles.bundle ?: throw BundleException(getString(R.string.bundle_missing))
        return engine.open(bundle, invitation, settings.state.value) { power.now() }
    }

    /** Another base station is joined: the next text is its own, and what it offers is asked for where there is no draft. */
    fun joined() {
        chat.renew()
        val source = try {
            source()
        } catch (_: LinkException) {
            null // the screen on which it is asked for says why
        }
        if (source != null && bundles.bundle == null) bundles.ask(source)
    }

    private fun letGo() {
        if (chat.rest()) engine.close()
    }

    /** Memory is wanted: the draft can be had again, and the lines are kept. */
    @Suppress("DEPRECATION") // Android 14 does not say it any more; those before do
    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND || level == ComponentCallbacks2.TRIM_MEMORY_RUNNING_CRITICAL) letGo()
    }

    private fun saved(): String? = try {
        File(filesDir, LINES).readText()
    } catch (_: IOException) {
        null
    }

    /** Keeps the lines of a [state] for a process that comes after this one. */
    suspend fun save(state: ChatState) = withContext(Dispatchers.IO) {
        val new = File(filesDir, "$LINES.new")
        try {
            new.writeText(state.saved())
            new.renameTo(File(filesDir, LINES))
        } catch (_: IOException) {
            false // a full disk is no reason to stop writing
        }
    }

    private companion object {
        const val LINES = "lines.json"
    }
}
