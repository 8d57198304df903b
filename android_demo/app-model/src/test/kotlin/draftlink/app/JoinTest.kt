package draftlink.app

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class JoinTest {
    private val pin = "A".repeat(43)
    private val link = "draftlink://join?url=wss%3A%2F%2F192.168.1.20%3A8765&token=secret-token&pin=$pin"
    private val clear = "draftlink://join?url=ws%3A%2F%2F192.168.1.20%3A8765&token=secret-token"

    private fun shown(model: JoinModel): String = model.state.value.toString().also { assertFalse("secret" in it) }

    @Test
    fun `a link is asked about, and joined only when a person says so`() {
        val kept = MemoryJoins()
        val model = JoinModel(kept)
        assertEquals("Nothing", shown(model))
        model.open(link)
        assertEquals("Asked(host=192.168.1.20:8765, pinned=true, secure=true, replaces=null, blocked=false, clear=false)", shown(model))
        assertNull(kept.kept)
        model.decline()
        assertEquals("Nothing", shown(model))
        assertFalse(model.accept()) // nothing is asked any more
        model.open(link)
        assertTrue(model.accept())
        assertEquals("Joined(host=192.168.1.20:8765, secure=true)", shown(model))
        assertEquals(Invitation("wss://192.168.1.20:8765", "secret-token", pin), kept.kept)
        assertEquals("Joined(host=192.168.1.20:8765, secure=true)", shown(JoinModel(kept))) // after the process has ended
    }

    @Test
    fun `another link does not take the place of what is joined without a word`() {
        val model = JoinModel(MemoryJoins(Invitation.of(link)))
        model.open("draftlink://join?url=wss://evil.example")
        assertEquals("Asked(host=evil.example, pinned=false, secure=true, replaces=192.168.1.20:8765, blocked=false, clear=false)", shown(model))
        model.decline()
        assertEquals("Joined(host=192.168.1.20:8765, secure=true)", shown(model))
        // The same address with another key is another base station.
        model.open(link.replace(pin, "B".repeat(43)))
        assertTrue("replaces=192.168.1.20:8765" in shown(model))
        model.leave()
        assertEquals("Nothing", shown(model))
        assertNull(model.joined)
    }

    @Test
    fun `what is not encrypted needs a switch, each time`() {
        val model = JoinModel(MemoryJoins())
        model.open(clear)
        assertEquals("Asked(host=192.168.1.20:8765, pinned=false, secure=false, replaces=null, blocked=true, clear=false)", shown(model))
        assertFalse(model.accept())
        model.allowClear(true)
        assertTrue("blocked=false, clear=true" in shown(model))
        model.open(clear) // the switch was for what was asked then
        assertFalse(model.accept())
        model.allowClear(true)
        assertTrue(model.accept())
        assertEquals("Joined(host=192.168.1.20:8765, secure=false)", shown(model))
        model.type(" ws://127.0.0.1:8765 ", "")
        assertTrue(model.accept()) // what stays on this machine needs none
        assertNull(model.joined!!.token)
    }

    @Test
    fun `a link that no camera has read can be pasted`() {
        val model = JoinModel(MemoryJoins())
        model.type(" $link\n", "")
        assertEquals("Asked(host=192.168.1.20:8765, pinned=true, secure=true, replaces=null, blocked=false, clear=false)", shown(model))
        model.type("draftlink://join", "token")
        assertEquals("Wrong(why=the link has no address)", shown(model))
    }

    @Test
    fun `links of strangers are refused, and say why`() {
        val wrong = mapOf(
            "https://join?url=wss://a" to "no link", "draftlink://leave?url=wss://a" to "no link", "draftlink:join" to "no link",
            "draftlink://join/x?url=wss://a" to "no link", "draftlink://user@join?url=wss://a" to "no link", "not a link" to "no link",
            "draftlink://join" to "no address", "draftlink://join?token=t" to "no address",
            "draftlink://join?url=http://a" to "not a WebSocket", "draftlink://join?url=wss://" to "not a WebSocket",
            "draftlink://join?url=wss://user@a" to "not a WebSocket", "draftlink://join?url=wss://a%3Fx" to "not a WebSocket",
            "draftlink://join?url=wss://a:0" to "no port", "draftlink://join?url=wss://a:99999" to "no port",
            "draftlink://join?url=wss://a&url=wss://b" to "twice", "draftlink://join?url=wss://a&token=t&token=u" to "twice",
            "draftlink://join?url=wss://a&token=" to "token", "draftlink://join?url=wss://a&token=a%0Ab" to "token",
            "draftlink://join?url=wss://a&token=%E4" to "token", "draftlink://join?url=wss://a&token=a+b" to "token",
            "draftlink://join?url=wss://a&pin=short" to "pin", "draftlink://join?url=ws://a&pin=$pin" to "no TLS",
            "draftlink://join?url=wss://a&x=${"y".repeat(5000)}" to "too long",
        )
        val model = JoinModel(MemoryJoins())
        for ((text, why) in wrong) {
            val said = assertThrows(InvitationException::class.java, { Invitation.of(text) }) { text }.message!!
            assertTrue(why in said) { "$text: $said" }
            model.open(text)
            assertEquals(JoinState.Wrong(said), model.state.value)
            assertFalse(model.accept())
        }
        assertEquals("wss://a", Invitation.of("draftlink://join/?later=x&url=wss://a").url) // what is not known is for others
        assertFalse("secret" in Invitation.of(link).toString())
    }
}
