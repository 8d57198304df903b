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
import java.net.InetAddress
import java.net.URI
import java.util.concurrent.TimeUnit

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
        val why = if (response == null || response.code == SWITCHING) LostException("${t.message ?: t::class.simpleName}")
        else denied(response)
        opened.completeExceptionally(why)
        incoming.close(why)
    }

    /** What an HTTP answer in the place of a WebSocket means. */
    private fun denied(response: Response): Exception {
        val status = response.code
        val after = response.header("Retry-After")
        return when {
            (status == 429 || status == 503) && after != null ->
                LostException("it takes no more devices now", (after.toLongOrNull() ?: BUSY_S).coerceIn(0, MOST_RETRY_S))
            status >= 500 || status in setOf(408, 425, 429) -> LostException("HTTP $status")
            status == 401 -> LinkException("the base station refuses: it wants another token")
            status in 300..399 -> LinkException("it redirects, which is not followed; give that address")
            else -> LinkException("it is no base station, or not for this device: HTTP $status")
        }
    }

    companion object {
        private const val PATH = "/v1/draft"
        private const val AHEAD = 64
        private const val NORMAL = 1000
        private const val FENCED = 4001
        private const val SWITCHING = 101
        private const val BUSY_S = 1L
        private const val MOST_RETRY_S = 3600L
        private const val PING_S = 20L
        private const val CONNECT_S = 10L

        private fun client(): OkHttpClient = OkHttpClient.Builder()
            .followRedirects(false)
            .followSslRedirects(false)
            .connectTimeout(CONNECT_S, TimeUnit.SECONDS)
            .readTimeout(0, TimeUnit.SECONDS) // the session knows what is due, and when
            .pingInterval(PING_S, TimeUnit.SECONDS)
            // It offers permessage-deflate of its own accord, which must not be used.
            .addInterceptor { it.proceed(it.request().newBuilder().removeHeader("Sec-WebSocket-Extensions").build()) }
            .build()

        /** Makes WebSockets, with a bearer [token] over TLS or to this machine only. */
        fun connector(token: String? = null, client: OkHttpClient = client()) = Connect { url ->
            val address = address(url)
            val here = loopback(address.host)
            if (token != null && address.scheme != "wss" && !here) {
                throw LinkException("the token would cross the network to ${address.host} in clear: give a wss:// address")
            }
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

        private fun address(url: String): URI {
            val found = runCatching { URI(url) }.getOrNull()
            val fits = found != null && found.scheme in setOf("ws", "wss") && found.host != null &&
                found.userInfo == null && found.query == null && found.fragment == null
            return if (fits) found else throw LinkException("this is not a WebSocket address such as ws://host:8765")
        }

        /** Whether a base station's [url] is this machine's. */
        internal fun isNear(url: String): Boolean = runCatching { loopback(address(url).host) }.getOrDefault(false)

        /** Whether a host is this machine whatever a name server says. */
        private fun loopback(host: String): Boolean {
            val literal = host.trim('[', ']')
            val numeric = literal.isNotEmpty() && (':' in literal || literal.all { it.isDigit() || it == '.' })
            return literal == "localhost" || (numeric && runCatching { InetAddress.getByName(literal).isLoopbackAddress }.getOrDefault(false))
        }
    }
}
