package draftlink.app

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import okio.ByteString.Companion.toByteString
import java.net.InetSocketAddress
import java.util.Collections

/**
 * A base station that offers a bundle of [files]. Of each answer [spoil] says what becomes of it; null: nothing.
 * [asked]: paths and ranges, in order.
 */
class FakeOffer(val files: Map<String, ByteArray>, private val spoil: (path: String, time: Int) -> Spoilt? = { _, _ -> null }) : AutoCloseable {
    /** [after] so many bytes the connection ends; or another [status]; or other [bytes]; or [parts] are not known. */
    data class Spoilt(val after: Int? = null, val status: Int? = null, val bytes: ByteArray? = null, val parts: Boolean = true, val retryAfter: String? = null)

    val asked: MutableList<String> = Collections.synchronizedList(ArrayList())
    private val times = HashMap<String, Int>()
    private val server = HttpServer.create(InetSocketAddress("127.0.0.1", 0), 0)
    val url = "ws://127.0.0.1:${server.address.port}"

    init {
        server.createContext("/") { exchange -> runCatching { answer(exchange) }.also { exchange.close() } }
        server.start()
    }

    private fun sha256(data: ByteArray) = data.toByteString().sha256().hex()

    fun offer(name: String = "small"): String {
        val listed = files.entries.joinToString(",") { (file, data) -> "\"$file\":{\"sha256\":\"${sha256(data)}\",\"bytes\":${data.size}}" }
        return """{"format":1,"name":"$name","files":{$listed}}"""
    }

    private fun answer(exchange: HttpExchange) {
        val path = exchange.requestURI.path
        val range = exchange.requestHeaders.getFirst("Range")
        val name = files.entries.firstOrNull { path.endsWith(sha256(it.value)) }?.key ?: "offer"
        asked += listOfNotNull(name, range).joinToString(" ")
        val spoilt = spoil(name, times.merge(name, 1, Int::plus)!!) ?: Spoilt()
        spoilt.retryAfter?.let { exchange.responseHeaders.add("Retry-After", it) }
        spoilt.status?.let { return exchange.sendResponseHeaders(it, -1) }
        val whole = spoilt.bytes ?: files[name] ?: offer().toByteArray()
        val begin = if (spoilt.parts && range != null) range.removePrefix("bytes=").removeSuffix("-").toInt() else 0
        if (begin > 0) exchange.responseHeaders.add("Content-Range", "bytes $begin-${whole.size - 1}/${whole.size}")
        exchange.sendResponseHeaders(if (begin > 0) 206 else 200, (whole.size - begin).toLong())
        exchange.responseBody.write(whole, begin, minOf(spoilt.after ?: whole.size, whole.size - begin))
        exchange.responseBody.flush()
    }

    override fun close() = server.stop(0)

    companion object {
        /** A bundle that a device would load, but for its graph. */
        fun bundle(size: Int = 300_000, passed: Boolean = true): Map<String, ByteArray> {
            val graph = ByteArray(size) { (it * 31 + it / 251).toByte() }
            val tokenizer = "{}".toByteArray()
            val listed = mapOf("model.onnx" to graph, "tokenizer.json" to tokenizer).entries.joinToString(",") { (name, data) ->
                "\"$name\":{\"sha256\":\"${data.toByteString().sha256().hex()}\",\"bytes\":${data.size}}"
            }
            val manifest = """{"format":1,"model":"small","graph":"shared","precision":"int8","vocab_size":300,"context":128,""" +
                """"layers":2,"kv_heads":2,"head_dim":16,"tokenizer_hash":"x","eos_token_ids":[0],"files":{$listed},"check":{"passed":$passed}}"""
            return mapOf("manifest.json" to manifest.toByteArray(), "model.onnx" to graph, "tokenizer.json" to tokenizer)
        }
    }
}
