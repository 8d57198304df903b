package draftlink.transport

import okhttp3.OkHttpClient
import okhttp3.Response
import okio.ByteString.Companion.decodeBase64
import okio.ByteString.Companion.toByteString
import java.net.InetAddress
import java.net.URI
import java.security.cert.CertificateException
import java.security.cert.X509Certificate
import java.util.concurrent.TimeUnit
import javax.net.ssl.SSLContext
import javax.net.ssl.SSLPeerUnverifiedException
import javax.net.ssl.X509TrustManager

/** What a base station's address is, who may have the token there, and what an HTTP answer means. */
object Http {
    private const val BUSY_S = 1L
    private const val MOST_RETRY_S = 3600L
    private const val PING_S = 20L
    private const val CONNECT_S = 10L
    private val PIN = Regex("[A-Za-z0-9_-]{43}")

    /**
     * A client that follows nobody elsewhere. [pin]: the SHA-256 of the base station's key as its certificate
     * holds it, in base64 for URLs without padding, which is trusted instead of certificates: names and dates
     * say nothing then. Throws [IllegalArgumentException] for what is none.
     */
    fun client(pin: String? = null): OkHttpClient {
        val builder = OkHttpClient.Builder()
            .followRedirects(false)
            .followSslRedirects(false)
            .connectTimeout(CONNECT_S, TimeUnit.SECONDS)
            .readTimeout(0, TimeUnit.SECONDS) // the session knows what is due, and when
            .pingInterval(PING_S, TimeUnit.SECONDS)
            // It offers permessage-deflate of its own accord, which must not be used.
            .addInterceptor { it.proceed(it.request().newBuilder().removeHeader("Sec-WebSocket-Extensions").build()) }
        if (pin != null) {
            val trusted = PinnedKey(pin)
            val context = SSLContext.getInstance("TLS").apply { init(null, arrayOf(trusted), null) }
            builder.sslSocketFactory(context.socketFactory, trusted)
            builder.hostnameVerifier { _, _ -> true } // the key is theirs, whatever they are called
        }
        return builder.build()
    }

    /** Whether this can be a pin. */
    fun isPin(text: String): Boolean = PIN.matches(text)

    /** Trusts one key. The handshake has proved that the peer holds it. */
    private class PinnedKey(pin: String) : X509TrustManager {
        private val digest = pin.also { require(isPin(it)) { "a pin has 43 letters, digits, - and _" } }.decodeBase64()

        override fun checkServerTrusted(chain: Array<out X509Certificate>, authType: String) {
            val found = chain.firstOrNull()?.publicKey?.encoded?.toByteString()?.sha256()
            if (found == null || found != digest) throw CertificateException("its key is not the one that is pinned")
        }

        override fun checkClientTrusted(chain: Array<out X509Certificate>, authType: String) {
            throw CertificateException("this is no server")
        }

        override fun getAcceptedIssuers(): Array<X509Certificate> = emptyArray()
    }

    /** What an HTTP answer in the place of what was asked for means: a [LostException] or a [LinkException]. */
    internal fun denied(response: Response): Exception {
        val status = response.code
        val after = response.header("Retry-After")
        return when {
            (status == 429 || status == 503) && after != null ->
                LostException("it takes no more devices now", (after.toLongOrNull() ?: BUSY_S).coerceIn(0, MOST_RETRY_S))
            status >= 500 || status in setOf(408, 425, 429) -> LostException("HTTP $status")
            status == 401 -> LinkException("the base station refuses: it wants another token")
            status in 300..399 -> LinkException("it redirects, which is not followed; give that address")
            else -> LinkException("it is no base station, or not for this device: HTTP $status", code = "HTTP $status")
        }
    }

    /** What an [error] of a connection means: who is not trusted is not asked again. */
    internal fun failed(error: Throwable): Exception {
        val distrusted = generateSequence(error) { it.cause }.any { it is CertificateException || it is SSLPeerUnverifiedException }
        return if (distrusted) LinkException("who answers there is not trusted: another key than the base station's, or a certificate that nobody known has signed")
        else LostException(error.message ?: error::class.java.simpleName)
    }

    /** A base station's address. Throws [LinkException]. */
    fun address(url: String): URI {
        val found = runCatching { URI(url) }.getOrNull()
        val fits = found != null && found.scheme in setOf("ws", "wss") && found.host != null &&
            found.userInfo == null && found.query == null && found.fragment == null
        return if (fits) found else throw LinkException("this is not a WebSocket address such as ws://host:8765")
    }

    /**
     * Throws [LinkException] where a [token] would cross a network in clear, unless that is wanted ([clear]),
     * or a [pin] would be looked at by nobody.
     */
    internal fun check(address: URI, token: String?, clear: Boolean, pin: String?) {
        val secure = address.scheme == "wss"
        if (pin != null && !secure) throw LinkException("a pin is of a TLS key, and this address has no TLS: give a wss:// address")
        if (token != null && !secure && !clear && !loopback(address.host)) {
            throw LinkException("the token would cross the network to ${address.host} in clear: give a wss:// address")
        }
    }

    /** Whether a host is this machine whatever a name server says. */
    fun loopback(host: String): Boolean {
        val literal = host.trim('[', ']')
        val numeric = literal.isNotEmpty() && (':' in literal || literal.all { it.isDigit() || it == '.' })
        return literal == "localhost" || (numeric && runCatching { InetAddress.getByName(literal).isLoopbackAddress }.getOrDefault(false))
    }
}
