package draftlink.wire

/** What a drafted token carries, and its parameters (docs/protocol.md, 3.1 and 7). */
sealed interface Scheme {
    /** Top-K rows: at most [k] entries whose counts have the sum [total], in [tiers] rows at most. */
    data class TopK(
        val k: Int = 8,
        val total: Int = 64,
        val coding: String = LATTICE,
        val mass: Double = 1.0,
        val tiers: Int = 3,
    ) : Scheme {
        /** Rows that a drafted token has at most: one where a row is cut, or has FP16 values (7.3). */
        val rows: Int get() = if (coding == FP16 || mass < 1.0) 1 else tiers
    }

    /** The whole row in FP16. */
    data object Dense : Scheme

    /** An id and its count; after a rejection the device draws, by at most [pairs] pairs (null: rows alone). */
    data class Split(val k: Int = 64, val total: Int = 1024, val pairs: Int? = null) : Scheme

    /** An id; both ends share the noise. */
    data object Coupled : Scheme

    companion object {
        const val LATTICE = "lattice"
        const val FP16 = "fp16"

        internal fun toMap(scheme: Scheme): Map<String, Any?> = when (scheme) {
            is TopK -> mapOf(
                "type" to "topk", "k" to scheme.k, "total" to scheme.total,
                "coding" to scheme.coding, "mass" to scheme.mass, "tiers" to scheme.tiers,
            )
            is Dense -> mapOf("type" to "dense")
            is Split -> buildMap {
                put("type", "split")
                put("k", scheme.k)
                put("total", scheme.total)
                scheme.pairs?.let { put("pairs", it) }
            }
            is Coupled -> mapOf("type" to "coupled")
        }

        internal fun of(fields: Fields): Scheme = when (val type = fields.string("type")) {
            "topk" -> TopK(
                int(fields, "k", 8),
                int(fields, "total", 64),
                fields.string("coding", LATTICE).also { demand(it == LATTICE || it == FP16) { "no coding $it" } },
                fields.double("mass", 1.0),
                int(fields, "tiers", 3),
            )
            "dense" -> Dense
            "split" -> Split(
                int(fields, "k", 64),
                int(fields, "total", 1024),
                if (fields.has("pairs")) int(fields, "pairs", 0) else null,
            )
            "coupled" -> Coupled
            else -> throw MalformedException("no scheme ${type.take(64)}")
        }

        private fun int(fields: Fields, key: String, default: Long): Int {
            val value = fields.long(key, default)
            demand(value in Int.MIN_VALUE..Int.MAX_VALUE) { "$key is $value" }
            return value.toInt()
        }
    }
}
