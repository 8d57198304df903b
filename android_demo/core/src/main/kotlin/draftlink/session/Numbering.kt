package draftlink.session

import draftlink.wire.Draft
import draftlink.wire.Frames
import okio.ByteString

/**
 * One end's count of numbered frames (docs/protocol.md, 4.8): it numbers its own from 0, counts the
 * peer's, and keeps the bytes of those that the peer may not have had. Those same bytes are sent
 * again after a lost connection: a token that is drawn twice would be chosen.
 */
class Numbering {
    /** Frames that this end has sent. */
    var sent = 0L
        private set

    /** Frames of the peer that this end has had. */
    var received = 0L
        internal set

    private class Kept(val number: Long, val data: ByteString)

    private var kept = listOf<Kept>()
    private var began = 0L // `sent` when the epoch began: a peer that is in it has had those before

    /** A frame is sent; [begins]: an epoch begins behind it. */
    internal fun add(data: ByteString, begins: Boolean) {
        kept = kept + Kept(sent, data)
        sent++
        if (begins) began = sent
    }

    /** The frames that a peer which has had [seen] of them lacks. */
    internal fun lacks(seen: Long): List<ByteString> = kept.filter { it.number >= seen }.map { it.data }

    /** Whether a peer which has had [seen] frames can be told all that it lacks. */
    internal fun has(seen: Long): Boolean = seen in sent - kept.size..sent

    /** The peer has shown that it is in the epoch. */
    internal fun inEpoch() {
        kept = kept.filter { it.number >= began }
    }

    /** Of the drafts the peer may lack the last [drafts], and any switch. */
    internal fun keep(drafts: Int) {
        val (sent, switches) = kept.partition { Frames.decode(it.data) is Draft }
        kept = sent.takeLast(drafts) + switches
    }

    /** The peer may lack the last [count] frames. */
    internal fun keepLast(count: Int) {
        kept = kept.takeLast(count)
    }

    /**
     * The peer has had [handled] frames; what it lacks, if kept, is numbered from there. What was
     * overtaken meanwhile is not sent again, and has no number any more.
     */
    internal fun goOnFrom(handled: Long) {
        val again = lacks(handled).mapIndexed { i, data -> Kept(handled + i, data) }
        kept = kept.filter { it.number < handled } + again
        sent = handled + again.size
    }

    /** Both ends number from 0 again; what is kept comes first. */
    internal fun restart() {
        kept = kept.mapIndexed { i, one -> Kept(i.toLong(), one.data) }
        sent = kept.size.toLong()
        received = 0
        began = 0
    }
}
