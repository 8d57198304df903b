package draftlink.wire

import okio.Buffer
import okio.ByteString

/** Messages to bytes and back: the first byte is the kind (docs/protocol.md, 3). */
object Frames {
    /** The version of the protocol that is spoken here. */
    const val VERSION = 6L

    /** The most bytes of a message. */
    const val MAX_MESSAGE_BYTES = 1 shl 20

    private const val CONTROL = 1

    /** The bytes of [frame]. */
    fun encode(frame: Frame): ByteString = when (frame) {
        is Hot -> Compact.encode(frame)
        is Control -> {
            val map = Msgpack.encode(ControlCodec.toMap(frame))
            Buffer().writeByte(CONTROL).write(map).readByteString()
        }
    }

    /** The frame that [data] is. Throws [MalformedException] for bytes that are none. */
    fun decode(data: ByteString): Frame {
        demand(data.size > 0) { "an empty message" }
        val source = FrameReader(data, 1)
        return when (val kind = data[0].toInt()) {
            CONTROL -> ControlCodec.of(Msgpack.decode(source))
            else -> Compact.decode(kind, source)
        }
    }
}
