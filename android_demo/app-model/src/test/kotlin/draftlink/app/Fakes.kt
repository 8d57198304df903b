package draftlink.app

import draftlink.device.Conversation
import draftlink.device.Live
import draftlink.device.Options
import draftlink.device.Result
import draftlink.device.Token
import draftlink.device.Who
import draftlink.text.Speaker
import draftlink.text.Tokenizer
import draftlink.transport.LinkState
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.flow
import java.io.File

/** What is joined, in memory. */
class MemoryJoins(var kept: Invitation? = null) : Joins {
    override fun load() = kept

    override fun save(invitation: Invitation) {
        kept = invitation
    }

    override fun forget() {
        kept = null
    }
}

/** Settings, in memory. */
class MemoryKept : Kept {
    val values = HashMap<String, String?>()

    override fun get(name: String) = values[name]

    override fun put(name: String, value: String?) {
        values[name] = value
    }
}

/** A conversation whose every text is [script]'s; what was asked is in [asked]. */
class Scripted(private val script: suspend FlowCollector<Token>.(Scripted) -> Unit) : Conversation {
    val asked = ArrayList<Pair<List<Int>, Options>>()
    var closed = false
    override val tokens: List<Int> = emptyList()
    override val link = MutableStateFlow(LinkState.OPEN)
    override val live = MutableStateFlow(Live())
    override val result: Result? = null

    override suspend fun open() = Unit

    override fun generate(prompt: List<Int>, options: Options): Flow<Token> = flow {
        asked += prompt to options
        script(this@Scripted)
    }

    override fun close() {
        closed = true
        link.value = LinkState.CLOSED
    }
}

/** A tokenizer of letters and the space: an id each. */
object Letters {
    private const val SIGNS = "abcdefghijklmnopqrstuvwxyz\u0120"

    val tokenizer: Tokenizer by lazy {
        val file = File.createTempFile("letters", ".json").apply { deleteOnExit() }
        val vocabulary = SIGNS.withIndex().joinToString(",") { (id, sign) -> "\"$sign\":$id" }
        val bytes = """{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"""
        file.writeText("""{"model":{"type":"BPE","vocab":{$vocabulary},"merges":[]},"pre_tokenizer":$bytes,"decoder":$bytes,"added_tokens":[]}""")
        Tokenizer.load(file)
    }

    /** The ids of a [text]. */
    fun ids(text: String): List<Int> = tokenizer.encode(text)
}

/** What a screen would show, in one line: `~` before what may be taken back, `*` corrected, `+` written. */
fun shown(state: ChatState): String {
    val lines = state.lines.joinToString(" / ") { line ->
        val said = line.pieces.joinToString("") { piece ->
            when (piece.who) {
                null -> piece.text
                Who.DRAFTED -> "(${piece.text})"
                Who.CORRECTED -> "*(${piece.text})"
                Who.WRITTEN -> "+(${piece.text})"
                Who.PROVISIONAL -> "~(${piece.text})"
            }
        }
        if (line.speaker == Speaker.USER) "you: $said" else "answer: $said"
    }
    val notice = state.notice?.let { " ! $it" }.orEmpty()
    return "$lines [${state.phase} ${state.link}]$notice"
}
