package draftlink.app

import draftlink.transport.Http
import draftlink.transport.LinkException
import java.net.URI
import java.net.URLDecoder

/** A link that nobody can join by; the text says why. */
class InvitationException(message: String) : Exception(message)

/**
 * How a base station is joined: its address, its token and the pin of its key, where it has them. Of a link
 * `draftlink://join?url=...&token=...&pin=...`, as `draftlink bs --qr` shows it.
 */
data class Invitation(val url: String, val token: String?, val pin: String?) {
    /** The base station's name or address, and its port. */
    val host: String get() = URI(url).authority

    /** Whether it has TLS. */
    val secure: Boolean get() = url.startsWith("wss:")

    /** Whether what is sent there stays on this machine. */
    val here: Boolean get() = Http.loopback(URI(url).host)

    /** Without the token, which no log may have. */
    override fun toString() = "Invitation($url)"

    companion object {
        /** What a link begins with. */
        const val SCHEME = "draftlink:"
        private const val LONGEST = 4096
        private const val KNOWN = "url token pin"

        /** What a [link] says, which may be anybody's. Throws [InvitationException]. */
        fun of(link: String): Invitation {
            if (link.length > LONGEST) throw InvitationException("the link is too long")
            val found = runCatching { URI(link) }.getOrNull()
            if (found == null || found.scheme != "draftlink" || found.authority != "join" || found.rawPath.orEmpty() !in setOf("", "/")) {
                throw InvitationException("this is no link to join a base station by")
            }
            val said = HashMap<String, String>()
            for (part in found.rawQuery.orEmpty().split("&")) {
                val key = decoded(part.substringBefore("="))
                if (key in KNOWN.split(" ") && said.put(key, decoded(part.substringAfter("=", ""))) != null) {
                    throw InvitationException("the link says its $key twice")
                }
            }
            return of(said["url"] ?: throw InvitationException("the link has no address"), said["token"], said["pin"])
        }

        /** What a person typed, or a link said. Throws [InvitationException]. */
        fun of(url: String, token: String?, pin: String?): Invitation {
            val address = try {
                Http.address(url)
            } catch (error: LinkException) {
                throw InvitationException(error.message.orEmpty())
            }
            if (address.port == 0 || address.port > 65535) throw InvitationException("there is no port ${address.port}")
            if (token != null && !(token.isNotEmpty() && token.all { it in '!'..'~' })) {
                throw InvitationException("the token is empty, or has characters that no HTTP header can carry")
            }
            if (pin != null && !Http.isPin(pin)) throw InvitationException("the pin is none")
            if (pin != null && address.scheme != "wss") throw InvitationException("there is a pin, but the address has no TLS")
            return Invitation(url, token, pin)
        }

        private fun decoded(text: String): String = try {
            URLDecoder.decode(text, "UTF-8") // by name: the other form came with Android 13
        } catch (error: IllegalArgumentException) {
            throw InvitationException("the link is spelled wrongly")
        }
    }
}
