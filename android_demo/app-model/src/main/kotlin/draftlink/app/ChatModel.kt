package draftlink.app

import draftlink.device.Conversation
import draftlink.device.Kind
import draftlink.transport.LinkState
import draftlink.device.Options
import draftlink.device.Who
import draftlink.model.BundleException
import draftlink.text.ChatForm
import draftlink.text.Pieces
import draftlink.text.Speaker
import draftlink.text.Tokenizer
import draftlink.text.TokenizerException
import draftlink.transport.LinkException
import draftlink.wire.Refused
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch

/**
 * A conversation that has been opened, and how its texts are written: as chats of a [form], or plain. The
 * texts begin with [bosIds] where no form says so.
 */
class Talk(
    val conversation: Conversation,
    val tokenizer: Tokenizer,
    val form: ChatForm?,
    val bosIds: List<Int>,
    val options: () -> Options,
)

/**
 * A chat. It is opened by [open] when something is sent and there is no conversation that can be heard, so that
 * its screen is there at once, and a base station that comes back is asked again. One thread's, that of [scope].
 */
class ChatModel(private val scope: CoroutineScope, lines: List<Said> = emptyList(), private val open: suspend () -> Talk) {
    private val found = MutableStateFlow(ChatState(lines))
    private var talk: Talk? = null
    private var watched: Job? = null
    private var work: Job? = null
    private var stale = false // the conversation is not with what is wanted now

    val state: StateFlow<ChatState> = found.asStateFlow()

    /** Says [text], and has the answer written; not while one is being written. Whether it is. */
    fun send(text: String): Boolean {
        if (found.value.phase != Phase.RESTING || text.isBlank()) return false
        val mine = Said(Speaker.USER, listOf(Piece(text, null)))
        found.update { it.copy(lines = it.lines + mine, phase = Phase.OPENING, notice = null) }
        work = scope.launch {
            try {
                write(opened())
            } catch (error: LinkException) {
                notice(error)
                found.update { it.copy(otherDraft = error.code == Refused.TOKENIZER) }
            } catch (error: BundleException) {
                notice(error)
            } catch (error: TokenizerException) {
                notice(error)
            } catch (error: IllegalArgumentException) { // such as a chat that is longer than any context
                notice(error)
            } finally {
                found.update { it.copy(phase = Phase.RESTING) }
            }
        }
        return true
    }

    /** Ends the answer where it is; what may be taken back goes. */
    fun stop() {
        if (found.value.phase == Phase.RESTING) return
        found.update { it.copy(phase = Phase.STOPPING) }
        work?.cancel()
    }

    /** Begins anew; not while an answer is being written. */
    fun clear() {
        if (found.value.phase == Phase.RESTING) found.update { it.copy(lines = emptyList(), notice = null) }
    }

    /** Lets go of the conversation, if nothing is being written; the lines stay. Whether it did. */
    fun rest(): Boolean {
        if (found.value.phase != Phase.RESTING) return false
        hangUp()
        return true
    }

    /** The next text is written with what [open] gives then: another base station or draft, or other settings. */
    fun renew() {
        stale = !rest()
    }

    private fun notice(error: Exception) = found.update { it.copy(notice = error.message ?: error::class.java.simpleName) }

    private fun hangUp() {
        watched?.cancel()
        talk?.conversation?.close()
        talk = null
        found.update { it.copy(link = LinkState.CLOSED, otherDraft = false) }
    }

    private suspend fun opened(): Talk {
        talk?.let { if (!stale && it.conversation.link.value in HEARD) return it }
        hangUp()
        stale = false
        val new = open()
        talk = new
        watched = scope.launch {
            launch { new.conversation.link.collect { link -> found.update { it.copy(link = link) } } }
            launch { new.conversation.live.collect { live -> found.update { it.copy(live = live) } } }
        }
        found.update { it.copy(plain = new.form == null, link = new.conversation.link.value) }
        return new
    }

    private fun prompt(talk: Talk): List<Int> {
        val form = talk.form ?: return talk.bosIds + talk.tokenizer.encode(found.value.lines.joinToString("") { it.text })
        return talk.tokenizer.encode(form.render(found.value.turns()))
    }

    private suspend fun write(talk: Talk) {
        val prompt = prompt(talk)
        val before = found.value.lines
        val pieces = Pieces(talk.tokenizer, prompt)
        val certain = ArrayList(prompt)
        val provisional = ArrayList<Int>()
        var said = Said(Speaker.ASSISTANT, emptyList())
        var last = Who.WRITTEN
        found.update { it.copy(phase = Phase.WRITING, lines = before + said) }
        try {
            talk.conversation.generate(prompt, talk.options()).collect { token ->
                if (token.kind == Kind.PROVISIONAL) {
                    provisional += token.id
                } else {
                    if (token.confirms) provisional.removeAt(0)
                    if (token.takesBack > 0) provisional.clear()
                    certain += token.id
                    last = token.kind.who
                    said = said.plus(Piece(pieces.push(token.id), last))
                }
                val shown = said.plus(Piece(tail(talk.tokenizer, certain, provisional), Who.PROVISIONAL))
                found.update { it.copy(lines = before + shown) }
            }
        } finally {
            said = said.plus(Piece(pieces.finish(), last))
            found.update { it.copy(lines = if (said.text.isEmpty()) before else before + said) }
        }
    }

    /** What [ids] that do not stand yet say behind those that do. */
    private fun tail(tokenizer: Tokenizer, certain: List<Int>, ids: List<Int>): String {
        if (ids.isEmpty()) return ""
        val pieces = Pieces(tokenizer, certain)
        return ids.joinToString("") { pieces.push(it) } + pieces.finish()
    }

    private companion object {
        val HEARD = setOf(LinkState.OPEN, LinkState.LOST) // who is lost is being looked for
    }
}
