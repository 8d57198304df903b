package draftlink.demo

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.IBinder
import draftlink.app.BundleState
import draftlink.app.ChatState
import draftlink.app.Numbers
import draftlink.app.Phase
import kotlinx.coroutines.Job
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch

/** Keeps the process alive, and says so, while an answer is written or a draft fetched. */
class WorkService : Service() {
    private val app get() = application as DemoApp
    private var watch: Job? = null

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == STOP) {
            app.chat.stop()
            app.bundles.stop()
        }
        val type = ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) startForeground(ID, notification(), type) else startForeground(ID, notification())
        if (watch?.isActive != true) watch = app.scope.launch { watch() }
        return START_NOT_STICKY // what was under way is not begun again by itself
    }

    /** Shows how far the work is, now and then; ends with it. */
    private suspend fun watch() {
        do {
            getSystemService(NotificationManager::class.java).notify(ID, notification())
            delay(EVERY_MS)
        } while (busy())
        stopForeground(STOP_FOREGROUND_REMOVE)
        stopSelf()
    }

    private fun busy(): Boolean = app.chat.state.value.phase != Phase.RESTING || fetching() != null

    private fun fetching() = app.bundles.state.value as? BundleState.Coming

    private fun notification(): Notification {
        val manager = getSystemService(NotificationManager::class.java)
        manager.createNotificationChannel(NotificationChannel(CHANNEL, getString(R.string.channel), NotificationManager.IMPORTANCE_LOW))
        val fetched = fetching()
        val builder = Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.icon)
            .setOngoing(true)
            .setContentTitle(getString(if (fetched == null) R.string.notice_writing else R.string.notice_fetching))
            .setContentText(if (fetched == null) said(app.chat.state.value) else fetched.name)
            .setContentIntent(PendingIntent.getActivity(this, 0, Intent(this, ChatActivity::class.java), PendingIntent.FLAG_IMMUTABLE))
        if (fetched != null) builder.setProgress(PARTS, if (fetched.bytes == 0L) 0 else (PARTS * fetched.have / fetched.bytes).toInt(), fetched.bytes == 0L)
        val stop = PendingIntent.getService(this, 0, Intent(this, WorkService::class.java).setAction(STOP), PendingIntent.FLAG_IMMUTABLE)
        builder.addAction(Notification.Action.Builder(null, getString(R.string.stop), stop).build())
        return builder.build()
    }

    private fun said(state: ChatState) = if (state.live.tokens > 0) Numbers.of(state, app.power.now()).first() else Numbers.link(state)

    override fun onDestroy() {
        watch?.cancel()
        super.onDestroy()
    }

    companion object {
        private const val ID = 1
        private const val CHANNEL = "work"
        private const val STOP = "draftlink.demo.STOP"
        private const val EVERY_MS = 1000L
        private const val PARTS = 1000

        /** From a screen that is seen: elsewhere the system would not let it. */
        fun start(context: Context) {
            context.startForegroundService(Intent(context, WorkService::class.java))
        }
    }
}
