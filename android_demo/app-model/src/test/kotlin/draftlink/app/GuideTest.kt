package draftlink.app

import draftlink.device.Kind
import draftlink.device.Options
import draftlink.device.Token
import draftlink.pull.Pull
import draftlink.pull.Station
import draftlink.transport.LinkException
import draftlink.wire.Refused
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** What a person is led to, who has just installed the app. */
@Timeout(30)
class GuideTest {
    @TempDir
    lateinit var folder: File
    private val joins = JoinModel(MemoryJoins())
    private val seen = ArrayList<Next>()

    private fun guided(what: suspend CoroutineScope.(BundleModel, Source) -> Unit) = runBlocking {
        val scope = CoroutineScope(coroutineContext + Job())
        FakeOffer(FakeOffer.bundle()).use { offer ->
            try {
                scope.what(BundleModel(scope, File(folder, "bundle")), Source.Of(Pull(Station(offer.url))))
            } finally {
                scope.cancel()
            }
        }
    }

    @Test
    fun `join, take the draft, chat`() = guided { bundles, source ->
        val chat = ChatModel(this) { throw LinkException("nobody is here") }
        val guide = Guide(joins, bundles, chat)
        launch { guide.next.collect { seen += it } }
        guide.next.first { it == Next.JOIN }
        joins.open("draftlink://join?url=wss%3A%2F%2F192.168.1.20%3A8765")
        assertEquals(Next.JOIN, guide.next.first()) // it is asked, and not answered yet
        joins.accept()
        assertEquals(Next.FETCH, guide.next.first())
        bundles.take(source)
        bundles.state.first { it is BundleState.Ready }
        guide.next.first { it == Next.CHAT }
        bundles.ask(source) // what is here may be used meanwhile
        bundles.state.first { it is BundleState.Offered }
        assertEquals(Next.CHAT, guide.next.first())
        joins.leave()
        assertEquals(Next.JOIN, guide.next.first())
        assertEquals(listOf(Next.JOIN, Next.FETCH, Next.WAIT, Next.CHAT, Next.JOIN), seen)
    }

    @Test
    fun `a draft that is not for this base station is taken anew`() = guided { bundles, source ->
        joins.open("draftlink://join?url=wss%3A%2F%2F192.168.1.20%3A8765")
        joins.accept()
        bundles.take(source)
        bundles.state.first { it is BundleState.Ready }
        var refuses = true
        val chat = ChatModel(this) {
            if (refuses) throw LinkException("it refuses: use a draft with the target's tokenizer", code = Refused.TOKENIZER)
            Talk(Scripted { emit(Token(0, Kind.STREAM)) }, Letters.tokenizer, null, emptyList()) { Options() }
        }
        val guide = Guide(joins, bundles, chat)
        launch { guide.next.collect { seen += it } }
        guide.next.first { it == Next.CHAT }
        chat.send("hi")
        assertEquals(Next.FETCH, guide.next.first { it != Next.CHAT })
        chat.state.first { it.phase == Phase.RESTING }
        assertEquals("you: hi [RESTING CLOSED] ! it refuses: use a draft with the target's tokenizer", shown(chat.state.value))
        bundles.take(source)
        guide.next.first { it == Next.WAIT }
        bundles.state.first { it is BundleState.Ready }
        chat.renew() // as the app does, when a draft is there
        guide.next.first { it == Next.CHAT }
        refuses = false
        chat.send("hi")
        assertEquals("you: hi / you: hi / answer: +(a) [RESTING OPEN]", shown(chat.state.first { it.phase == Phase.RESTING && it.lines.size == 3 }))
        assertEquals(listOf(Next.CHAT, Next.FETCH, Next.WAIT, Next.CHAT), seen.filterIndexed { place, it -> place == 0 || seen[place - 1] != it })
    }
}
