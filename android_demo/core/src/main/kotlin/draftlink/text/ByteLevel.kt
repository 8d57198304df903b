package draftlink.text

/** GPT-2's alphabet: each byte as a character that can be seen, so that any text has a spelling in it. */
internal object ByteLevel {
    private val CHARACTERS = CharArray(256)
    private val BYTES = HashMap<Char, Byte>()

    init {
        var next = 256
        for (byte in 0..255) {
            val seen = byte in 33..126 || byte in 161..172 || byte in 174..255
            val character = if (seen) byte.toChar() else (next++).toChar()
            CHARACTERS[byte] = character
            BYTES[character] = byte.toByte()
        }
    }

    /** The spelling of a [text]. */
    fun spell(text: String): String {
        val bytes = text.toByteArray()
        return String(CharArray(bytes.size) { CHARACTERS[bytes[it].toInt() and 0xFF] })
    }

    /** The bytes of a [word]; of one that is no spelling, its own. */
    fun bytes(word: String): ByteArray {
        val found = ByteArray(word.length)
        word.forEachIndexed { i, character -> found[i] = BYTES[character] ?: return word.toByteArray() }
        return found
    }
}
