package draftlink

import draftlink.session.Role
import draftlink.session.Session
import draftlink.transport.Client
import draftlink.transport.Connect
import draftlink.transport.Deadlines
import draftlink.transport.Link
import draftlink.transport.LinkException
import draftlink.transport.LinkState
import draftlink.transport.LostException
import draftlink.transport.Silence
import draftlink.wire.Draft
import draftlink.wire.Frames
import draftlink.wire.Hello
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import draftlink.wire.Start
import draftlink.wire.Welcome
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull
import okio.ByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

/** A base station that says nothing is given up, but only while something is due from it. */
class SilenceTest {
    private val mute = object : Link {
        override suspend fun send(message: ByteString) = Unit
        override suspend fun receive(): ByteString = awaitCancellation()
        override fun close() = Unit
    }
    private val brief = Deadlines(0.01, 0.01)

    @Test
    fun `no answer to a greeting`() {
        val client = Client("ws://here", "5a".repeat(32), VOCABULARY, Connect { mute }, deadlines = brief)
        assertThrows(LinkException::class.java) { runBlocking { client.open() } }
        assertEquals(LinkState.GONE, client.state.value)
    }

    /** A prompt that takes the draft minutes is no silence: nothing is due meanwhile. Behind a draft something is. */
    @Test
    fun `only while something is due`() {
        val session = Session(Role.DEVICE, VOCABULARY)
        val silence = Silence(session, brief) { System.nanoTime() * 1e-9 }
        val hello = Hello(6, "5a".repeat(32), VOCABULARY.toLong(), listOf("coupled"), "test")
        session.send(hello)
        session.receive(Frames.encode(Welcome(6, hello.tokenizerHash, VOCABULARY.toLong(), 99, listOf("coupled"), "m", "float32")))
        session.send(Start(1, 0, listOf(1), Sampling(), Scheme.Coupled, "draft", 9, emptyList(), 1.toBigInteger()))
        silence.begins()
        assertNull(runBlocking { withTimeoutOrNull(100) { silence.hear(mute) } })
        session.send(Draft(session.epoch, 1, 0, ByteString.EMPTY))
        silence.sends()
        assertThrows(LostException::class.java) { runBlocking { silence.hear(mute) } }
    }
}
