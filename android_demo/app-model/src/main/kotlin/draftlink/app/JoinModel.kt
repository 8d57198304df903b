package draftlink.app

import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow

/** Where what was joined is kept: on a phone, with a key of its keystore. */
interface Joins {
    /** What is joined, if anything; what cannot be read any more is nothing. */
    fun load(): Invitation?

    fun save(invitation: Invitation)

    fun forget()
}

/** What the screen shows on which a base station is joined. No state has a token. */
sealed interface JoinState {
    /** Nothing is joined, and nothing asked. */
    data object Nothing : JoinState

    /** The link was none. */
    data class Wrong(val why: String) : JoinState

    /**
     * A link was opened: shall this [host] be joined? [pinned]: its key is known; [secure]: there is TLS.
     * [replaces]: what is joined now, and would not be any more. [blocked]: it is in clear, which is not
     * allowed; the switch beside it is [clear].
     */
    data class Asked(
        val host: String,
        val pinned: Boolean,
        val secure: Boolean,
        val replaces: String?,
        val blocked: Boolean,
        val clear: Boolean,
    ) : JoinState

    /** A [host] is joined. */
    data class Joined(val host: String, val secure: Boolean) : JoinState
}

/**
 * Joining. A link may come from any page or message, so nothing is joined before a person has seen where it
 * leads; and nothing that is not encrypted is, unless a switch says so, but on this machine.
 */
class JoinModel(private val kept: Joins) {
    private val found = MutableStateFlow<JoinState>(JoinState.Nothing)
    private var asked: Invitation? = null
    private var clear = false

    /** What is joined. */
    var joined: Invitation? = kept.load()
        private set

    val state: StateFlow<JoinState> = found.asStateFlow()

    init {
        rest()
    }

    /** A [link] was opened. */
    fun open(link: String) = ask { Invitation.of(link) }

    /** A person typed an address, and a token or nothing; or a link, where the camera reads none. */
    fun type(url: String, token: String) = ask {
        if (url.trim().startsWith(Invitation.SCHEME)) Invitation.of(url.trim())
        else Invitation.of(url.trim(), token.trim().ifEmpty { null }, null)
    }

    private fun ask(invitation: () -> Invitation) {
        clear = false // a switch is for one base station
        try {
            asked = invitation()
            show()
        } catch (error: InvitationException) {
            asked = null
            found.value = JoinState.Wrong(error.message.orEmpty())
        }
    }

    /** The switch that lets what is asked go over a network in clear. */
    fun allowClear(allowed: Boolean) {
        if (asked == null) return
        clear = allowed
        show()
    }

    /** Join what is asked, if it may be; whether it was. */
    fun accept(): Boolean {
        val invitation = asked ?: return false
        if (blocked(invitation)) return false
        kept.save(invitation)
        joined = invitation
        decline()
        return true
    }

    /** Do not; or leave what was wrong. */
    fun decline() {
        asked = null
        rest()
    }

    /** Forget what is joined, and its token. */
    fun leave() {
        kept.forget()
        joined = null
        decline()
    }

    private fun blocked(invitation: Invitation) = !(invitation.secure || invitation.here || clear)

    private fun show() {
        val invitation = asked!!
        val replaces = joined?.host?.takeIf { joined != invitation }
        found.value = JoinState.Asked(
            invitation.host, invitation.pin != null, invitation.secure, replaces, blocked(invitation), clear,
        )
    }

    private fun rest() {
        found.value = joined?.let { JoinState.Joined(it.host, it.secure) } ?: JoinState.Nothing
    }
}
