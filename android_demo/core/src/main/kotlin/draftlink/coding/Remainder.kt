package draftlink.coding

import draftlink.distribution.Drafted
import draftlink.distribution.SparseRow

/** The last row of a chain of nested ones: the prior of ids, over all that no row lists (docs/protocol.md, 7.3). */
internal object Remainder {
    /** A token of it; [below] draws from [0, total). The row is not made for it: that takes milliseconds. */
    fun draw(above: List<SparseRow>, vocabSize: Int, below: (Long) -> Long): Drafted {
        val prior = IdPrior(vocabSize)
        val listed = above.flatMap { row -> row.ids.map { prior.share(it) } }.sortedBy { it.below }
        val total = prior.total - listed.sumOf { it.weight }
        var place = below(total)
        for (share in listed) {
            if (place < share.below) break
            place += share.weight
        }
        val token = prior.owner(place)
        return Drafted(token, prior.share(token).weight, total, null, above)
    }
}
