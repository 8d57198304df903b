package draftlink.text

/** Bytes as text, one U+FFFD for the longest beginning of a character that is none (Unicode, 3.9). */
internal object Utf8 {
    private const val REPLACEMENT = '\uFFFD'

    /** The text of [bytes]. Java's own decoder counts differently where a beginning breaks off. */
    fun lossy(bytes: ByteArray): String {
        val out = StringBuilder(bytes.size)
        var at = 0
        while (at < bytes.size) {
            val size = beginning(bytes, at)
            if (size > 0) out.append(String(bytes, at, size)) else out.append(REPLACEMENT)
            at += maxOf(size, -size)
        }
        return out.toString()
    }

    /** The size of the character at a place; negative: that of what begins like one and is none. */
    private fun beginning(bytes: ByteArray, at: Int): Int {
        val first = bytes[at].toInt() and 0xFF
        val size = when (first) {
            in 0x00..0x7F -> return 1
            in 0xC2..0xDF -> 2
            in 0xE0..0xEF -> 3
            in 0xF0..0xF4 -> 4
            else -> return -1
        }
        for (i in 1 until size) {
            val byte = if (at + i < bytes.size) bytes[at + i].toInt() and 0xFF else 0
            if (byte !in if (i == 1) second(first) else 0x80..0xBF) return -i
        }
        return size
    }

    /** What may follow a first byte: no longer spelling than need be, no surrogate, nothing above U+10FFFF. */
    private fun second(first: Int): IntRange = when (first) {
        0xE0 -> 0xA0..0xBF
        0xED -> 0x80..0x9F
        0xF0 -> 0x90..0xBF
        0xF4 -> 0x80..0x8F
        else -> 0x80..0xBF
    }
}
