package draftlink.pull

import draftlink.transport.Http
import draftlink.transport.LinkException
import draftlink.transport.LostException
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.Response
import java.io.Closeable
import java.io.IOException
import java.util.concurrent.TimeUnit

/**
 * A base station's address, and what it is asked with over HTTP: the rules are the WebSocket's. [clear]: the
 * token may cross a network in clear. Throws [LinkException].
 */
class Station(val url: String, private val token: String? = null, pin: String? = null, clear: Boolean = false) {
    private val base: String
    private val client: OkHttpClient

    init {
        val address = Http.address(url)
        Http.check(address, token, clear, pin)
        base = url.replaceFirst("ws", "http").trimEnd('/')
        client = Http.client(pin).newBuilder().readTimeout(SILENT_S, TimeUnit.SECONDS).build()
    }

    /** A body that is on its way: where it [begin]s in the whole, and how many bytes that has ([total]; -1: not said). */
    class Answer internal constructor(private val response: Response, val begin: Long, val total: Long) : Closeable {
        /** The next bytes into [part]; -1 at the end. Throws [LostException]. */
        fun read(part: ByteArray): Int = try {
            response.body!!.byteStream().read(part)
        } catch (error: IOException) {
            throw LostException(error.message ?: error::class.java.simpleName)
        }

        override fun close() = response.close()
    }

    /** What is at a [path], from byte [begin] on if the other end has it so. Throws [LostException], [LinkException]. */
    fun get(path: String, begin: Long = 0): Answer {
        val request = Request.Builder().url(base + path).header("Accept-Encoding", "identity")
        token?.let { request.header("Authorization", "Bearer $it") }
        if (begin > 0) request.header("Range", "bytes=$begin-")
        val response = try {
            client.newCall(request.build()).execute()
        } catch (error: IOException) {
            throw Http.failed(error)
        }
        try {
            return answer(response)
        } catch (error: Exception) {
            response.close()
            throw error
        }
    }

    private fun answer(response: Response): Answer {
        val length = response.body!!.contentLength()
        if (response.code == 200) return Answer(response, 0, length)
        if (response.code != 206) throw Http.denied(response)
        val found = RANGE.matchEntire(response.header("Content-Range") ?: "")
        val (first, last, total) = found?.destructured?.toList()?.map { it.toLong() } ?: listOf(0L, -1L, 0L)
        if (first <= last && last < total && length == last + 1 - first) return Answer(response, first, total)
        throw LinkException("$url sent a part of a file, and did not say which")
    }

    private companion object {
        const val SILENT_S = 30L // without a byte
        val RANGE = Regex("bytes (\\d{1,15})-(\\d{1,15})/(\\d{1,15})")
    }
}
