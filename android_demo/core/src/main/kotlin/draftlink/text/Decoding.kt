package draftlink.text

import kotlinx.serialization.json.JsonObject

/** How words become a text again: a list of them to a list, whose parts are joined. */
internal fun interface Decode {
    fun apply(words: List<String>): List<String>
}

/** The decoders of a `tokenizer.json`. What is not here is refused by name. */
internal object Decoding {
    private val BYTE = Regex("<0x([0-9A-Fa-f]{2})>")

    fun decoder(part: JsonObject?): Decode {
        if (part == null) return Decode { words -> words.mapIndexed { i, word -> if (i == 0) word else " $word" } }
        return when (val type = part.word("type")) {
            "Sequence" -> {
                val all = part.parts("decoders").map { decoder(it) }
                Decode { words -> all.fold(words) { so, one -> one.apply(so) } }
            }
            "ByteLevel" -> Decode { words -> listOf(Utf8.lossy(joined(words.map { ByteLevel.bytes(it) }))) }
            "ByteFallback" -> Decode(::bytes)
            "Fuse" -> Decode { words -> listOf(words.joinToString("")) }
            "Replace" -> {
                val what = part.part("pattern").word("String")
                val by = part.word("content")
                Decode { words -> words.map { it.replace(what, by) } }
            }
            "Strip" -> strip(part)
            "Metaspace" -> metaspace(part)
            else -> throw TokenizerException("its decoder is $type, which is not known here")
        }
    }

    private fun joined(parts: List<ByteArray>): ByteArray {
        val all = ByteArray(parts.sumOf { it.size })
        var at = 0
        for (part in parts) {
            part.copyInto(all, at)
            at += part.size
        }
        return all
    }

    /** The byte that a [word] names, if it names one. */
    fun byte(word: String): Byte? = BYTE.matchEntire(word)?.let { it.groupValues[1].toInt(16).toByte() }

    /** Runs of bytes as text; where one is none, each of its bytes as U+FFFD. */
    private fun bytes(words: List<String>): List<String> {
        val out = ArrayList<String>()
        val run = ArrayList<Byte>()
        fun end() {
            if (run.isEmpty()) return
            val data = run.toByteArray()
            val text = String(data)
            if (text.toByteArray().contentEquals(data)) out += text else repeat(run.size) { out += "\uFFFD" }
            run.clear()
        }
        for (word in words) {
            val byte = byte(word)
            if (byte != null) {
                run += byte
                continue
            }
            end()
            out += word
        }
        end()
        return out
    }

    private fun strip(part: JsonObject): Decode {
        val content = part.word("content").single()
        val start = part.number("start")
        val stop = part.number("stop")
        return Decode { words ->
            words.map { word ->
                val before = minOf(start, word.length - word.trimStart(content).length)
                val left = word.substring(before)
                left.dropLast(minOf(stop, left.length - left.trimEnd(content).length))
            }
        }
    }

    private fun metaspace(part: JsonObject): Decode {
        val mark = part.word("replacement")
        val prefixed = (part.wordOrNull("prepend_scheme") ?: "always") != "never"
        return Decode { words ->
            words.mapIndexed { i, word ->
                val spaced = word.replace(mark, " ")
                if (i == 0 && prefixed) spaced.removePrefix(" ") else spaced
            }
        }
    }
}
