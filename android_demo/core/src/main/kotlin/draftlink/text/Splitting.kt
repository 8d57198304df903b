package draftlink.text

import kotlinx.serialization.json.JsonObject
import java.text.Normalizer
import java.util.regex.Pattern

/** What is done to a text before it is looked up, as `tokenizer.json` says: a text to a text. */
internal fun interface Normalize {
    fun apply(text: String): String
}

/** How a text is cut into words: each piece to pieces. [first]: the piece begins the text. */
internal fun interface Split {
    fun apply(piece: String, first: Boolean): List<String>
}

/** The parts of a `tokenizer.json` that change and cut texts. What is not here is refused by name. */
internal object Splitting {
    // White space of Unicode. Java's \s is ASCII's, Android's is not, and neither has a flag that both know.
    private const val SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
    private const val GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

    /** A pattern of the tokenizers' language in Java's, for the JVM and Android alike. */
    fun pattern(source: String): Pattern {
        val out = StringBuilder()
        var depth = 0 // of character classes
        var at = 0
        while (at < source.length) {
            val two = source.substring(at, minOf(at + 2, source.length))
            when {
                two == "\\s" -> out.append(if (depth > 0) SPACE else "[$SPACE]")
                two == "\\S" && depth == 0 -> out.append("[^$SPACE]")
                two == "\\S" || two == "\\w" || two == "\\W" || two == "\\d" || two == "\\D" ->
                    throw TokenizerException("a pattern with $two, which is not the same everywhere")
                two.length == 2 && two[0] == '\\' -> out.append(two)
                else -> {
                    if (source[at] == '[') depth++
                    if (source[at] == ']') depth--
                    out.append(source[at])
                    at--
                }
            }
            at += 2
        }
        return Pattern.compile(out.toString(), Pattern.UNICODE_CASE)
    }

    fun normalizer(part: JsonObject?): Normalize {
        if (part == null) return Normalize { it }
        return when (val type = part.word("type")) {
            "Sequence" -> {
                val all = part.parts("normalizers").map { normalizer(it) }
                Normalize { text -> all.fold(text) { so, one -> one.apply(so) } }
            }
            "NFC" -> Normalize { Normalizer.normalize(it, Normalizer.Form.NFC) }
            "Prepend" -> part.word("prepend").let { before -> Normalize { if (it.isEmpty()) it else before + it } }
            "Replace" -> {
                val what = part.part("pattern").wordOrNull("String")
                    ?: throw TokenizerException("its normalizer replaces by a pattern, which is not read here")
                val by = part.word("content")
                Normalize { it.replace(what, by) }
            }
            else -> throw TokenizerException("its normalizer is $type, which is not known here")
        }
    }

    fun splitter(part: JsonObject?): Split {
        if (part == null) return Split { piece, _ -> listOf(piece) }
        return when (val type = part.word("type")) {
            "Sequence" -> sequence(part.parts("pretokenizers").map { splitter(it) })
            "ByteLevel" -> byteLevel(part)
            "Digits" -> digits(part.flag("individual_digits"))
            "Split" -> byPattern(part)
            "Metaspace" -> metaspace(part)
            else -> throw TokenizerException("its pre-tokenizer is $type, which is not known here")
        }
    }

    private fun sequence(all: List<Split>) = Split { piece, first ->
        all.fold(listOf(piece)) { pieces, one ->
            pieces.flatMapIndexed { i, each -> one.apply(each, first && i == 0) }
        }
    }

    private fun byteLevel(part: JsonObject): Split {
        val prefixes = part.flag("add_prefix_space")
        val pattern = if (part.flag("use_regex", true)) pattern(GPT2) else null
        return Split { piece, _ ->
            val text = if (prefixes && !piece.startsWith(" ")) " $piece" else piece
            val words = if (pattern == null) listOf(text) else cut(text, pattern).map { text.substring(it.begin, it.end) }
            words.map { ByteLevel.spell(it) }
        }
    }

    private val NUMBER = setOf(Character.DECIMAL_DIGIT_NUMBER, Character.LETTER_NUMBER, Character.OTHER_NUMBER)

    private fun digits(individual: Boolean): Split {
        val numbers = NUMBER.map { it.toInt() }.toSet()
        return Split { piece, _ ->
            val words = ArrayList<String>()
            var begin = 0
            var at = 0
            var digit = false // whether what begins at `begin` is of digits
            while (at < piece.length) {
                val point = piece.codePointAt(at)
                val is_ = Character.getType(point) in numbers
                if (at > begin && (is_ != digit || (is_ && individual))) {
                    words += piece.substring(begin, at)
                    begin = at
                }
                digit = is_
                at += Character.charCount(point)
            }
            words + piece.substring(begin)
        }
    }

    private class Span(val begin: Int, val end: Int, val matches: Boolean)

    /** A text as parts that match a pattern and parts that do not. */
    private fun cut(text: String, pattern: Pattern): List<Span> {
        val found = ArrayList<Span>()
        val matcher = pattern.matcher(text)
        var at = 0
        while (matcher.find()) {
            if (matcher.end() == matcher.start()) continue
            if (matcher.start() > at) found += Span(at, matcher.start(), false)
            found += Span(matcher.start(), matcher.end(), true)
            at = matcher.end()
        }
        if (at < text.length) found += Span(at, text.length, false)
        return found
    }

    private fun byPattern(part: JsonObject): Split {
        val given = part.part("pattern")
        val pattern = given.wordOrNull("Regex")?.let { pattern(it) } ?: Pattern.compile(Pattern.quote(given.word("String")))
        val inverted = part.flag("invert")
        val behaviour = part.word("behavior")
        if (behaviour !in setOf("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext")) {
            throw TokenizerException("its pre-tokenizer splits as $behaviour, which is not known here")
        }
        return Split { piece, _ -> joined(piece, cut(piece, pattern), behaviour, inverted) }
    }

    private fun joined(text: String, spans: List<Span>, behaviour: String, inverted: Boolean): List<String> {
        val words = ArrayList<String>()
        var merges = false // the next part belongs to the word before it
        for (span in spans) {
            val word = text.substring(span.begin, span.end)
            val cuts = span.matches != inverted
            if (cuts && behaviour == "Removed") continue
            val here = (cuts && behaviour == "MergedWithPrevious" && words.isNotEmpty() && !merges) ||
                (!cuts && behaviour == "MergedWithNext" && merges)
            if (here) words[words.lastIndex] += word else words += word
            merges = when (behaviour) {
                "MergedWithPrevious" -> cuts // behind a separator nothing is merged into it
                "MergedWithNext" -> cuts
                else -> false
            }
        }
        return words
    }

    private fun metaspace(part: JsonObject): Split {
        val mark = part.word("replacement")
        val scheme = part.wordOrNull("prepend_scheme") ?: "always"
        val splits = part.flag("split", true)
        val pattern = Pattern.compile(Pattern.quote(mark))
        return Split { piece, first ->
            val marked = piece.replace(" ", mark)
            val prefixes = scheme == "always" || (scheme == "first" && first)
            val text = if (prefixes && !marked.startsWith(mark)) mark + marked else marked
            if (splits) joined(text, cut(text, pattern), "MergedWithNext", false) else listOf(text)
        }
    }
}
