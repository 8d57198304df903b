package draftlink.text

/**
 * Text out of tokens, in pieces that never have to be taken back: what `decode(prompt + tokens)` says
 * beyond what it has in common with `decode(prompt)`. [prompt]: all ids before the text, of which only
 * the last are read; [stops]: strings that end the text, none of them empty.
 *
 * Held back is a U+FFFD at the end, which may be a character's first bytes; a run of byte tokens, which is
 * text or not as a whole; and what may begin a stop string. Only the last few tokens are decoded for each
 * piece, so that one costs the same wherever it stands.
 */
class Pieces(private val tokenizer: Tokenizer, prompt: List<Int>, private val stops: List<String> = emptyList()) {
    /** A stop string has come; the text ends before it. */
    var stopped = false
        private set

    private var ended = false
    private var held = "" // settled, but it may begin a stop string
    private var window = ArrayList<Int>() // the last tokens, at whose end are
    private var run = 0 // so many byte tokens
    private val runBytes = ArrayList<Byte>()
    private var settled: Int // characters of the window's text
    private var prompted: String // what the prompt says behind that: a token may change it

    init {
        require(stops.none { it.isEmpty() }) { "a stop string is empty" }
        context(prompt)
        settled = certain(tokenizer.decode(window.dropLast(run)))
        prompted = tokenizer.decode(window).drop(settled)
    }

    /** The piece of text that is certain with [token]; empty once the text has ended. */
    fun push(token: Int): String {
        val word = (if (ended) null else tokenizer.word(token)) ?: return ""
        window += token
        val byte = tokenizer.byte(word)
        if (byte != null) {
            run++
            runBytes += byte
            // If the text ends here, the run does. The decoder is asked where the bytes say so.
            return if (stops.isNotEmpty() && found(runText()) && found(rest())) finish() else ""
        }
        run = 0
        runBytes.clear()
        held += settle()
        if (found("")) return finish()
        val keep = held.length - beginning()
        return held.take(keep).also { held = held.drop(keep) }
    }

    /** The text ends here: what was held back, up to the first stop string in it. */
    fun finish(): String {
        if (ended) return ""
        ended = true
        val rest = held + rest()
        held = ""
        val ends = stops.map { rest.indexOf(it) }.filter { it >= 0 }
        stopped = ends.isNotEmpty()
        return if (stopped) rest.take(ends.min()) else rest
    }

    /** The last tokens of a prompt, as many as it takes, and the run of bytes at its end. */
    private fun context(prompt: List<Int>) {
        val backwards = ArrayList<Int>()
        for (token in prompt.asReversed()) {
            val word = tokenizer.word(token) ?: continue
            val byte = if (run == backwards.size) tokenizer.byte(word) else null
            backwards += token
            if (byte != null) {
                run++
                runBytes.add(0, byte)
                continue
            }
            val last = backwards.size - run
            // Something of it has to be settled: then the decoder's rule for the first is used up.
            if (last == MOST || (last % KEEP == 0 && certain(tokenizer.decode(backwards.drop(run).reversed())) > 0)) break
        }
        window = ArrayList(backwards.reversed())
    }

    /** What is certain now that was not. */
    private fun settle(): String {
        val text = tokenizer.decode(window)
        val certain = certain(text)
        val new = if (settled < certain) text.substring(settled, certain) else ""
        val own = own(new)
        prompted = if (own.isEmpty()) prompted.drop(new.length) else ""
        settled = maxOf(settled, certain)
        if (window.size >= 2 * KEEP) shorten(text)
        return own
    }

    /** Goes on with fewer tokens, if they say the same. */
    private fun shorten(text: String) {
        val fewer = window.takeLast(KEEP)
        val says = tokenizer.decode(fewer)
        val rest = text.drop(settled)
        if ((says.endsWith(rest) && says.length > rest.length) || window.size > MOST) {
            window = ArrayList(fewer)
            settled = maxOf(0, says.length - rest.length)
        }
    }

    /** Characters of a text that further tokens leave as they are, unless it ends in a run. */
    private fun certain(text: String) = text.length - if (text.endsWith(REPLACEMENT)) 1 else 0

    /** Of what follows the settled part, what the prompt alone does not say. */
    private fun own(text: String): String = text.drop(text.commonPrefixWith(prompted).length)

    /** What the text would have behind what is settled, if it ended here. */
    private fun rest(): String = own(tokenizer.decode(window).drop(settled))

    /** What the run of bytes says as it is; nothing where it is no text. */
    private fun runText(): String {
        val data = runBytes.toByteArray()
        val text = Utf8.lossy(data)
        return if (text.toByteArray().contentEquals(data)) own(text) else ""
    }

    /** Whether a stop string is in what is held back and [text]. */
    private fun found(text: String) = stops.any { it in held + text }

    /** Characters at the end of what is held that may begin a stop string. */
    private fun beginning(): Int = stops.maxOfOrNull { stop ->
        (minOf(stop.length - 1, held.length) downTo 1).firstOrNull { held.endsWith(stop.take(it)) } ?: 0
    } ?: 0

    private companion object {
        // Tokens that are decoded before what is new: no character is longer than 4, and what decoders do
        // to the first token falls on them.
        const val KEEP = 8
        const val MOST = 256 // likewise, where those say nothing by themselves
        const val REPLACEMENT = '\uFFFD'
    }
}
