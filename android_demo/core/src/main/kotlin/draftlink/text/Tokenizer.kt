package draftlink.text

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.intOrNull
import java.io.File
import java.io.IOException
import java.util.regex.Pattern

/** A `tokenizer.json` that cannot be read, or whose parts are not known here; the text says which. */
class TokenizerException(message: String) : Exception(message)

/**
 * Texts to token ids and back, as Hugging Face's `tokenizer.json` says: byte-pair encoding, over bytes
 * or SentencePiece's alphabet. It is the same function as theirs, or it is refused: an id that the base
 * station's tokenizer would not have made is another text there.
 */
class Tokenizer private constructor(root: JsonObject) {
    private class Added(val id: Int, val content: String, val special: Boolean, val normalized: Boolean)

    private val vocabulary: Map<String, Int>
    private val added: List<Added>
    private val words = HashMap<Int, String>()
    private val special: Set<Int>
    private val model: Bpe
    private val normalizer = Splitting.normalizer(root.partOrNull("normalizer"))
    private val splitter = Splitting.splitter(root.partOrNull("pre_tokenizer"))
    private val decoder = Decoding.decoder(root.partOrNull("decoder"))
    private val joinsBytes = decoder.apply(listOf("<0x41>")) != listOf("<0x41>") // as is seen by what comes out
    private val raw: Pattern?
    private val normal: Pattern?
    private val byContent = HashMap<String, Int>()

    init {
        val part = root.part("model")
        if ((part.wordOrNull("type") ?: "BPE") != "BPE") throw TokenizerException("its model is ${part.word("type")}, not BPE")
        for (key in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
            if (!part.wordOrNull(key).isNullOrEmpty()) throw TokenizerException("its model has a $key")
        }
        vocabulary = part.part("vocab").entries.associate { (word, id) -> word to number(id) }
        model = Bpe(
            vocabulary,
            part.list("merges").map { merge(it) },
            part.flag("byte_fallback", false),
            part.flag("ignore_merges", false),
            part.wordOrNull("unk_token")?.let { vocabulary[it] },
            part.flag("fuse_unk", false),
        )
        added = (if (root["added_tokens"] == null) emptyList() else root.parts("added_tokens")).map { added(it) }
        for ((word, id) in vocabulary) words[id] = word
        for (each in added) words[each.id] = each.content
        special = added.filter { it.special }.map { it.id }.toSet()
        raw = anyOf(added.filter { !it.normalized }) { it.content }
        normal = anyOf(added.filter { it.normalized }) { normalizer.apply(it.content) }
    }

    private fun merge(value: JsonElement): Pair<String, String> {
        val parts = if (value is JsonArray) value.map { (it as JsonPrimitive).content } else (value as JsonPrimitive).content.split(" ")
        if (parts.size != 2) throw TokenizerException("a merge of ${parts.size} words")
        return parts[0] to parts[1]
    }

    private fun added(part: JsonObject): Added {
        val content = part.word("content")
        if (listOf("single_word", "lstrip", "rstrip").any { part.flag(it, false) }) {
            throw TokenizerException("its token $content takes what is around it")
        }
        return Added(part.number("id"), content, part.flag("special", false), part.flag("normalized", true))
    }

    /** Any of some added tokens, the longest of those that begin at one place. */
    private fun anyOf(tokens: List<Added>, text: (Added) -> String): Pattern? {
        val contents = tokens.associateBy(text).filterKeys { it.isNotEmpty() }
        for ((content, token) in contents) byContent[content] = token.id
        if (contents.isEmpty()) return null
        return Pattern.compile(contents.keys.sortedByDescending { it.length }.joinToString("|") { Pattern.quote(it) })
    }

    /** The ids of a [text], without those that a tokenizer of its own accord puts before or behind one. */
    fun encode(text: String): List<Int> {
        val ids = ArrayList<Int>()
        around(raw, text, 0, ids) { piece, from ->
            around(normal, normalizer.apply(piece), from, ids) { plain, at ->
                for (word in splitter.apply(plain, at == 0)) model.encode(word, ids)
            }
        }
        return ids
    }

    /** Calls [other] with what lies between the tokens that [pattern] finds, whose ids are appended. */
    private inline fun around(
        pattern: Pattern?, text: String, from: Int, ids: MutableList<Int>, other: (String, Int) -> Unit,
    ) {
        var at = 0
        val matcher = pattern?.matcher(text)
        while (matcher != null && matcher.find()) {
            if (matcher.start() > at) other(text.substring(at, matcher.start()), from + at)
            ids += byContent.getValue(matcher.group())
            at = matcher.end()
        }
        if (at < text.length) other(text.substring(at), from + at)
    }

    /** The text of [ids], special tokens left out; an id without a word says nothing. */
    fun decode(ids: List<Int>): String =
        decoder.apply(ids.filter { it !in special }.mapNotNull { words[it] }).joinToString("")

    /** A token as the decoder sees it; null for a special token and for an id without one. */
    internal fun word(id: Int): String? = if (id in special) null else words[id]

    /** The byte that a [word] stands for, where the decoder puts bytes together. */
    internal fun byte(word: String): Byte? = if (joinsBytes) Decoding.byte(word) else null

    companion object {
        /** The tokenizer in a [file]. Throws [TokenizerException]. */
        fun load(file: File): Tokenizer = try {
            Tokenizer(Trees.of(file.readText()) as? JsonObject ?: throw TokenizerException("$file is no tokenizer"))
        } catch (error: IllegalArgumentException) {
            throw TokenizerException("$file is no tokenizer (${error.message?.lines()?.first()})")
        } catch (error: IOException) {
            throw TokenizerException("$file cannot be read (${error.message})")
        }
    }
}

private fun number(value: JsonElement): Int =
    (value as? JsonPrimitive)?.intOrNull ?: throw TokenizerException("$value where a number is due")

internal fun JsonObject.partOrNull(key: String): JsonObject? {
    val found = this[key]
    if (found == null || found is JsonNull) return null
    return found as? JsonObject ?: throw TokenizerException("its $key is no object")
}

internal fun JsonObject.part(key: String): JsonObject = partOrNull(key) ?: throw TokenizerException("it lacks $key")

internal fun JsonObject.list(key: String): JsonArray =
    this[key] as? JsonArray ?: throw TokenizerException("its $key is no list")

internal fun JsonObject.parts(key: String): List<JsonObject> =
    list(key).map { it as? JsonObject ?: throw TokenizerException("its $key has something else than objects") }

internal fun JsonObject.wordOrNull(key: String): String? =
    (this[key] as? JsonPrimitive)?.takeIf { it.isString }?.content

internal fun JsonObject.word(key: String): String = wordOrNull(key) ?: throw TokenizerException("it lacks $key")

internal fun JsonObject.number(key: String): Int = number(this[key] ?: throw TokenizerException("it lacks $key"))

internal fun JsonObject.flag(key: String, default: Boolean? = null): Boolean =
    (this[key] as? JsonPrimitive)?.booleanOrNull ?: default ?: throw TokenizerException("it lacks $key")
