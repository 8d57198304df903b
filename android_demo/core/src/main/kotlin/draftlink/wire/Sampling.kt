package draftlink.wire

/**
 * A request's sampling parameters (docs/protocol.md, 3.1), which travel once, in Start.
 *
 * [temperature] 0 is greedy; [topK] 0, [topP] 1, [minP] 0 and [repetitionPenalty] 1 are off. The last
 * three are sent only where they are stated: an older base station does not know them. [logitBias]
 * has ids that ascend.
 */
data class Sampling(
    val temperature: Double = 1.0,
    val topK: Long = 0,
    val topP: Double = 1.0,
    val minP: Double = 0.0,
    val repetitionPenalty: Double = 1.0,
    val frequencyPenalty: Double? = null,
    val presencePenalty: Double? = null,
    val logitBias: List<Pair<Int, Double>>? = null,
) {
    /** Whether only the arg max counts. */
    val greedy: Boolean get() = temperature == 0.0

    /** Throws [IllegalArgumentException], with a line that names the parameter, for one out of range. */
    fun check() {
        // Written so that NaN fails every test.
        require(temperature == 0.0 || temperature in COLDEST..100.0) {
            "temperature must be 0 (greedy) or between $COLDEST and 100, not $temperature"
        }
        require(topK >= 0) { "top_k must be 0 (off) or more, not $topK" }
        require(topP > 0.0 && topP <= 1.0) { "top_p must be above 0 and at most 1, not $topP" }
        require(minP >= 0.0 && minP < 1.0) { "min_p must be at least 0 and below 1, not $minP" }
        require(repetitionPenalty in 0.01..100.0) {
            "repetition_penalty must be between 0.01 and 100, not $repetitionPenalty"
        }
        for ((name, value) in listOf("frequency_penalty" to frequencyPenalty, "presence_penalty" to presencePenalty)) {
            require(value == null || value in -MOST_PENALTY..MOST_PENALTY) {
                "$name must be between -$MOST_PENALTY and $MOST_PENALTY, not $value"
            }
        }
        val bias = logitBias ?: return
        require(bias.size <= MOST_BIASED) { "logit_bias has ${bias.size} ids; give at most $MOST_BIASED" }
        val ids = listOf(-1) + bias.map { it.first }
        require(ids.zipWithNext().all { (a, b) -> a < b }) { "logit_bias must have ids that ascend, each once" }
        require(bias.all { it.second in -MOST_BIAS..MOST_BIAS }) {
            "logit_bias must be between -$MOST_BIAS and $MOST_BIAS"
        }
    }

    internal fun toMap(): Map<String, Any?> = buildMap {
        put("temperature", temperature)
        put("top_k", topK)
        put("top_p", topP)
        put("min_p", minP)
        put("repetition_penalty", repetitionPenalty)
        frequencyPenalty?.let { put("frequency_penalty", it) }
        presencePenalty?.let { put("presence_penalty", it) }
        logitBias?.let { bias -> put("logit_bias", bias.map { listOf(it.first, it.second) }) }
    }

    companion object {
        private const val COLDEST = 1e-6
        private const val MOST_PENALTY = 2.0
        private const val MOST_BIAS = 100.0
        private const val MOST_BIASED = 1024

        internal fun of(fields: Fields) = Sampling(
            fields.double("temperature", 1.0),
            fields.long("top_k", 0),
            fields.double("top_p", 1.0),
            fields.double("min_p", 0.0),
            fields.double("repetition_penalty", 1.0),
            if (fields.has("frequency_penalty")) fields.double("frequency_penalty", 0.0) else null,
            if (fields.has("presence_penalty")) fields.double("presence_penalty", 0.0) else null,
            if (fields.has("logit_bias")) fields.pairs("logit_bias") else null,
        )
    }
}
