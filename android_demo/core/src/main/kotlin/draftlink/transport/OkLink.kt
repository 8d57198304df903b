package draftlink.transport

import draftlink.wire.Frames
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.ClosedReceiveChannelException
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.Response
import okhttp3.WebSocket
import okhttp3.WebSocketListener
import okio.ByteString

/**
 * A WebSocket over OkHttp (docs/protocol.md, 2). What comes is read as it comes, up to [AHEAD] messages
 * that nobody has asked for; then the base station waits.
 */
class OkLink private constructor() : WebSocketListener(), Link {
    private val opened = CompletableDeferred<Unit>()
    private val incoming = Channel<ByteString>(AHEAD)
    private lateinit var socket: WebSocket

    override suspend fun send(message: ByteString) {
        if (!socket.send(message)) throw LostException("the connection is closed")
    }

    override suspend fun receive(): ByteString = try {
        incoming.receive()
    } catch (_: ClosedReceiveChannelException) {
        throw LostException("the connection was closed")
    } catch (_: CancellationException) { // of what came, by [close]; or of who asks
        currentCoroutineContext().ensureActive()
        throw LostException("the connection was closed")
    }

    override fun close() {
        incoming.cancel() // lets go who is reading, too
        if (!socket.close(NORMAL, null)) socket.cancel()
    }

    override fun onOpen(webSocket: WebSocket, response: Response) {
        opened.complete(Unit)
    }

    override fun onMessage(webSocket: WebSocket, bytes: ByteString) {
        if (bytes.size > Frames.MAX_MESSAGE_BYTES) return fail(webSocket, LinkException("it sent a message of ${bytes.size} bytes"))
        incoming.trySendBlocking(bytes) // where this end has closed it, nobody wants it
    }

    override fun onMessage(webSocket: WebSocket, text: String) = fail(webSocket, LinkException("it sent a text message"))

    private fun fail(webSocket: WebSocket, why: Exception) {
        incoming.close(why)
        webSocket.cancel()
    }

    override fun onClosing(webSocket: WebSocket, code: Int, reason: String) {
        webSocket.close(NORMAL, null)
        incoming.close(
            if (code == FENCED) LinkException("another connection has taken over this session")
            else LostException("it closed the connection ($code)"),
        )
    }

    override fun onFailure(webSocket: WebSocket, t: Throwable, response: Response?) {
        val why = if (response == null || response.code == SWITCHING) Http.failed(t) else Http.denied(response)
        opened.completeExceptionally(why)
        incoming.close(why)
    }

    companion object {
        private const val PATH = "/v1/draft"
        private const val AHEAD = 64
        private const val NORMAL = 1000
        private const val FENCED = 4001
        private const val SWITCHING = 101

        /**
         * Makes WebSockets, with a bearer [token] over TLS or to this machine only, unless it may cross a network
         * in [clear]. [pin]: the key that is trusted instead of certificates ([Http.client]).
         */
        fun connector(
            token: String? = null,
            pin: String? = null,
            clear: Boolean = false,
            client: OkHttpClient = Http.client(pin),
        ) = Connect { url ->
            Http.check(Http.address(url), token, clear, pin)
            val request = Request.Builder().url(url.trimEnd('/') + PATH)
            token?.let { request.header("Authorization", "Bearer $it") }
            val link = OkLink()
            link.socket = client.newWebSocket(request.build(), link)
            try {
                link.opened.await()
            } catch (error: Throwable) {
                link.socket.cancel()
                throw error
            }
            link
        }

        /** Whether a base station's [url] is this machine's. */
        internal fun isNear(url: String): Boolean = runCatching { Http.loopback(Http.address(url).host) }.getOrDefault(false)
    }
}
