package draftlink.session

import draftlink.session.Faults.unless
import draftlink.wire.Hello
import draftlink.wire.Scheme
import draftlink.wire.Start
import draftlink.wire.Welcome

/** What is wrong with greetings, and with options that hang on what was agreed on (docs/protocol.md, 4.2 and 14). */
internal object Validate {
    private const val MAX_FEATURES = 64 // that are told, and schemes
    private const val MAX_NAME = 256 // characters; a session keeps its Hello
    private const val MAX_TICKET = 4096 // bytes; it comes back with every Hello
    private const val MAX_EOS = 256
    private const val MAX_BOS = 16
    private const val MAX_SUPPRESSED = 1 shl 16
    private const val MAX_UNAPPLIED = 64
    private const val MAX_CONTEXT = 1L shl 31 // positions are 32-bit numbers
    private const val MAX_VOCAB = 1L shl 20 // rows of this size are made, whatever a frame's own size
    private const val MAX_BIASED = 1024
    private const val MOST_LOGPROBS = 20L

    fun hello(frame: Hello): String? {
        if (frame.schemes.size > MAX_FEATURES || frame.features.size > MAX_FEATURES) {
            return "more than $MAX_FEATURES schemes or features"
        }
        return unless(characters(frame.agent) <= MAX_NAME && characters(frame.tokenizerHash) <= MAX_NAME) {
            "an agent or a tokenizer's hash of more than $MAX_NAME characters"
        }
    }

    private fun characters(text: String) = text.codePointCount(0, text.length)

    /** What is wrong with a base station's greeting, as the answer to the one that it was [offered]. */
    fun welcome(offered: Hello, frame: Welcome): String? {
        val lowest = if (offered.lowest != 0L) offered.lowest else offered.version
        if (frame.version !in lowest..offered.version) {
            return "version ${frame.version}, where $lowest to ${offered.version} were offered"
        }
        if (frame.tokenizerHash != offered.tokenizerHash) return "a welcome to a tokenizer that is not this one"
        if (frame.features.size > MAX_FEATURES || !offered.features.containsAll(frame.features)) {
            return "features that were not offered"
        }
        if (frame.vocabSize !in 1..MAX_VOCAB || frame.context !in 1 until MAX_CONTEXT) {
            return "a target of ${frame.vocabSize} logits and a context of ${frame.context}"
        }
        if (!offered.schemes.containsAll(frame.schemes) || frame.schemes.size > offered.schemes.size) {
            return "schemes that were not offered"
        }
        if (frame.ticket.size > MAX_TICKET) return "a ticket of ${frame.ticket.size} bytes, where $MAX_TICKET are the most"
        if (frame.frameEntries < 1 || frame.flightEntries < frame.frameEntries) {
            return "at most ${frame.frameEntries} entries a draft, ${frame.flightEntries} in flight"
        }
        return facts(frame)
    }

    /** What is wrong with what a target's own files say. */
    private fun facts(frame: Welcome): String? {
        val lists = listOf(frame.eosIds to MAX_EOS, frame.bosIds to MAX_BOS, frame.suppressedIds to MAX_SUPPRESSED)
        for ((ids, most) in lists) {
            if (ids.size > most || ids.any { it !in 0 until frame.vocabSize }) {
                return "${ids.size} EOS, BOS or suppressed ids, where $most are the most, or ids out of range"
            }
        }
        if (frame.unapplied.size > MAX_UNAPPLIED || frame.unapplied.any { characters(it) > MAX_NAME }) {
            return "more than $MAX_UNAPPLIED settings, or $MAX_NAME characters of one"
        }
        return try {
            frame.sampling?.check()
            null
        } catch (error: IllegalArgumentException) {
            "a suggested sampling that cannot be (${error.message})"
        }
    }

    /** What is wrong with a request's options, where they hang on what was agreed on. */
    fun options(welcome: Welcome, start: Start): String? =
        mode(welcome, start) ?: penalties(welcome, start) ?: logprobs(welcome, start) ?: surprisals(welcome, start)
            ?: recovery(welcome, start) ?: ends(welcome, start)

    private fun agreed(welcome: Welcome, feature: String, what: String) =
        unless(feature in welcome.features) { "$what, and the feature $feature was not agreed on" }

    private fun mode(welcome: Welcome, start: Start): String? {
        if (start.mode != "both") return null
        return agreed(welcome, Features.BOTH, "both ends are to write")
            ?: unless(Rule(start.scheme, start.sampling.greedy).foretells) {
                "both ends are to write, and the text would depend on who proposes it"
            }
    }

    private fun penalties(welcome: Welcome, start: Start): String? {
        val sampling = start.sampling
        val bias = sampling.logitBias
        if (bias == null && sampling.frequencyPenalty == null && sampling.presencePenalty == null) return null
        agreed(welcome, Features.PENALTIES, "a bias or penalties")?.let { return it }
        return unless(bias.orEmpty().size <= MAX_BIASED && bias.orEmpty().all { it.first in 0 until welcome.vocabSize }) {
            "a bias of more than $MAX_BIASED ids, or of ids that are not among the target's ${welcome.vocabSize}"
        }
    }

    private fun logprobs(welcome: Welcome, start: Start): String? {
        val asked = start.logprobs ?: return null
        return agreed(welcome, Features.LOGPROBS, "log-probabilities")
            ?: unless(asked in 0..MOST_LOGPROBS) { "log-probabilities of $asked ids, where $MOST_LOGPROBS are the most" }
    }

    private fun surprisals(welcome: Welcome, start: Start): String? =
        if (start.streamedSurprisals == null) null else agreed(welcome, Features.STREAMED, "surprisals of a stream")

    private fun recovery(welcome: Welcome, start: Start): String? {
        val pairs = (start.scheme as? Scheme.Split)?.pairs ?: return null
        return agreed(welcome, Features.RECOVERY, "a device is to correct by pairs")
            ?: unless(pairs == 0 || start.logprobs == null) {
                "a device is to correct by pairs, which have no log-probabilities of others"
            }
    }

    /** What is wrong with the ids that end a text, or that are never in it. */
    private fun ends(welcome: Welcome, start: Start): String? {
        if (start.eosIds.size > MAX_EOS) return "${start.eosIds.size} EOS ids, where $MAX_EOS is the most"
        val ids = start.suppressedIds ?: return null
        agreed(welcome, Features.SUPPRESSED, "suppressed ids")?.let { return it }
        if (ids.size > MAX_SUPPRESSED) return "${ids.size} suppressed ids, where $MAX_SUPPRESSED are the most"
        if (ids.any { it !in 0 until welcome.vocabSize } || ids.zipWithNext().any { (a, b) -> a >= b }) {
            return "suppressed ids that do not ascend, or are out of range"
        }
        return unless(ids.size.toLong() < welcome.vocabSize) { "all ids are suppressed, and none is left to be written" }
    }
}

/** What a Start may have only where both ends speak it (docs/protocol.md, 14). */
object Features {
    const val SUPPRESSED = "suppressed-ids"
    const val BOTH = "both-write-2"
    const val PENALTIES = "penalties"
    const val LOGPROBS = "logprobs"
    const val RECOVERY = "recovery"
    const val LEAVES = "leaves"
    const val STREAMED = "streamed-surprisals"
}
