package draftlink.app

import draftlink.device.Kind
import draftlink.device.Live
import draftlink.device.Options
import draftlink.device.Token
import draftlink.text.Speaker
import draftlink.transport.LinkException
import draftlink.transport.LinkState
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancel
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.yield
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

/** A chat's states, as text. */
@Timeout(30)
class ChatTest {
    private fun talk(conversation: Scripted, options: () -> Options = { Options() }) = Talk(conversation, Letters.tokenizer, null, listOf(26), options)

    private suspend fun FlowCollector<Token>.say(text: String, kind: Kind) = Letters.ids(text).forEach { emit(Token(it, kind)) }

    private suspend fun ChatModel.rests(): String = shown(state.first { it.phase == Phase.RESTING && it.lines.isNotEmpty() })

    private fun chat(what: suspend CoroutineScope.() -> Unit) = runBlocking {
        val scope = CoroutineScope(coroutineContext + Job())
        try {
            scope.what()
        } finally {
            scope.cancel()
        }
    }

    @Test
    fun `who wrote what is seen, and the next turn goes on from it`() = chat {
        val conversation = Scripted {
            say("ab", Kind.DRAFT)
            say("c", Kind.CORRECTION)
            say(" d", Kind.BONUS)
            say("e", Kind.DRAFT)
            it.live.value = Live("both", 6, 3)
        }
        var opened = 0
        val model = ChatModel(this) { talk(conversation).also { opened++ } }
        assertFalse(model.send(" \n"))
        assertTrue(model.send("hi "))
        assertEquals("you: hi  [OPENING CLOSED]", shown(model.state.value))
        assertFalse(model.send("again")) // one at a time
        assertEquals("you: hi  / answer: (ab)*(c)+( d)(e) [RESTING OPEN]", model.rests())
        assertEquals("both", model.state.first { it.live.tokens == 6 }.live.mode)
        assertTrue(model.state.value.plain)
        model.send(" so")
        yield()
        model.rests()
        assertEquals(listOf(26) + Letters.ids("hi abc de so"), conversation.asked[1].first)
        assertEquals(1, opened)
    }

    @Test
    fun `what the draft wrote alone is pale, then confirmed or taken back`() = chat {
        val lost = CompletableDeferred<Unit>()
        val back = CompletableDeferred<Unit>()
        val conversation = Scripted {
            say("ab", Kind.DRAFT)
            it.link.value = LinkState.LOST
            say("cdef", Kind.PROVISIONAL)
            lost.complete(Unit)
            back.await()
            it.link.value = LinkState.OPEN
            emit(Token(Letters.ids("c").single(), Kind.DRAFT, confirms = true))
            emit(Token(Letters.ids("x").single(), Kind.CORRECTION, takesBack = 3))
        }
        val model = ChatModel(this) { talk(conversation) }
        model.send("hi")
        lost.await()
        val pale = model.state.first { it.link == LinkState.LOST }
        assertEquals("you: hi / answer: (ab)~(cdef) [WRITING LOST]", shown(pale))
        assertEquals("connection lost; what is pale is not certain yet", Numbers.link(pale))
        assertEquals("you: hi / answer: (ab)", shown(ChatState(ChatState.restored(pale.saved()))).substringBefore(" ["))
        val seen = ArrayList<String>()
        back.complete(Unit)
        model.state.first { seen += shown(it); it.phase == Phase.RESTING }
        assertEquals("you: hi / answer: (abc)*(x) [RESTING OPEN]", model.rests())
        assertTrue(seen.size > 1)
    }

    @Test
    fun `what does not stand at the end goes`() = chat {
        val conversation = Scripted {
            say("a", Kind.DRAFT)
            say("bc", Kind.PROVISIONAL)
        }
        val model = ChatModel(this) { talk(conversation) }
        model.send("hi")
        assertEquals("you: hi / answer: (a) [RESTING OPEN]", model.rests())
    }

    @Test
    fun `an answer is stopped where it is, and a chat goes on after it`() = chat {
        val conversation = Scripted {
            say("ab", Kind.DRAFT)
            say("cd", Kind.PROVISIONAL)
            if (it.asked.size == 1) awaitCancellation()
        }
        val model = ChatModel(this) { talk(conversation) }
        model.send("hi")
        model.state.first { it.provisional && shown(it).contains("~(cd)") }
        assertFalse(model.rest()) // memory may be wanted, but not now
        model.stop()
        assertEquals("you: hi / answer: (ab) [STOPPING OPEN]", shown(model.state.value).replace("~(cd)", ""))
        assertEquals("you: hi / answer: (ab) [RESTING OPEN]", model.rests())
        model.stop() // nothing is being written
        assertTrue(model.send("more"))
        yield()
        assertEquals("you: hi / answer: (ab) / you: more / answer: (ab) [RESTING OPEN]", model.rests())
    }

    @Test
    fun `a base station that is not there says so, and is asked again`() = chat {
        val answers = Scripted { say("b", Kind.STREAM) }
        var tries = 0
        val model = ChatModel(this) { if (tries++ == 0) throw LinkException("no base station") else talk(answers) }
        model.send("hi")
        assertEquals("you: hi [RESTING CLOSED] ! no base station", model.rests())
        model.send("ho")
        yield()
        assertEquals("you: hi / you: ho / answer: +(b) [RESTING OPEN]", model.rests())
        // Of two questions the one without an answer is left out of a chat.
        assertEquals(listOf("ho", "b"), model.state.value.turns().map { it.text })
        // One that is gone for good is left, and a new connection made; one that is looked for is not.
        answers.link.value = LinkState.LOST
        model.send("a")
        yield()
        model.rests()
        assertEquals(2, tries)
        answers.link.value = LinkState.GONE
        model.send("a")
        yield()
        model.rests()
        assertEquals(3, tries)
    }

    @Test
    fun `another base station, draft or setting counts from the next text on`() = chat {
        val made = ArrayList<Scripted>()
        val model = ChatModel(this) {
            talk(Scripted { say("a", Kind.DRAFT); if (it.asked.size > 1) awaitCancellation() }.also { made += it })
        }
        model.send("hi")
        model.rests()
        model.renew() // nothing is being written
        assertTrue(made.single().closed)
        model.send("hi")
        yield()
        model.rests()
        model.send("hi")
        model.state.first { it.phase == Phase.WRITING }
        model.renew() // and here something is
        assertFalse(made[1].closed)
        model.stop()
        model.rests()
        model.send("hi")
        yield()
        model.rests()
        assertEquals(listOf(1, 2, 1), made.map { it.asked.size })
        assertTrue(made[1].closed)
    }

    @Test
    fun `a screen that is turned in mid-text shows the same, and the text goes on`() = chat {
        val turned = CompletableDeferred<Unit>()
        val model = ChatModel(this) {
            talk(Scripted { say("ab", Kind.DRAFT); say("c", Kind.PROVISIONAL); turned.await(); say("d", Kind.CORRECTION) })
        }
        val screen = launch { model.state.collect {} }
        model.send("hi")
        val before = model.state.first { it.provisional }
        screen.cancelAndJoin()
        assertEquals(before, model.state.first()) // what the next one sees first
        turned.complete(Unit)
        assertEquals("you: hi / answer: (ab)*(d) [RESTING OPEN]", model.rests())
    }

    @Test
    fun `what is lost in the middle keeps what stands`() = chat {
        val conversation = Scripted {
            say("ab", Kind.DRAFT)
            say("c", Kind.PROVISIONAL)
            it.link.value = LinkState.GONE
            throw LinkException("it has gone")
        }
        val model = ChatModel(this) { talk(conversation) }
        model.send("hi")
        model.rests()
        model.state.first { it.link == LinkState.GONE }
        assertEquals("you: hi / answer: (ab) [RESTING GONE] ! it has gone", shown(model.state.value))
    }

    @Test
    fun `memory is let go between texts, and lines outlive the process`() = chat {
        val first = Scripted { say("ab", Kind.DRAFT) }
        val model = ChatModel(this) { talk(first) }
        model.send("hi")
        model.rests()
        assertTrue(model.rest())
        assertTrue(first.closed)
        val kept = model.state.value.saved()
        val next = Scripted { say("c", Kind.DRAFT) }
        val again = ChatModel(this, ChatState.restored(kept)) { talk(next) }
        assertEquals("you: hi / answer: (ab) [RESTING CLOSED]", shown(again.state.value))
        again.send(" ho")
        yield()
        again.rests()
        assertEquals(listOf(26) + Letters.ids("hiab ho"), next.asked.single().first)
        again.clear()
        assertEquals(" [RESTING OPEN]", shown(again.state.value))
        for (wrong in listOf(null, "", "{", "[1]", """[{"speaker":"NOBODY","pieces":[]}]""")) assertEquals(emptyList<Said>(), ChatState.restored(wrong))
        assertEquals(Speaker.USER, ChatState.restored(kept).first().speaker)
    }
}
