package draftlink.model

/** A draft: tokens in, logits out, and a KV cache that rolls back. One thread's at a time. */
interface DraftModel : AutoCloseable {
    /** Logits of a row. */
    val vocabSize: Int

    /** The most tokens that it can be fed. */
    val context: Int

    /** Tokens in the KV cache. */
    val length: Int

    /**
     * Feeds [ids]; the logits (V,) of the last one, valid until the next call. Throws
     * [IllegalArgumentException] for no ids, or past the context.
     */
    fun forward(ids: List<Int>): FloatArray

    /** Cuts the cache back to [length] tokens. Throws [IllegalArgumentException] for more than it holds. */
    fun rollback(length: Int)
}
