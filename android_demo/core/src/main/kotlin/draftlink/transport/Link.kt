package draftlink.transport

import okio.ByteString

/**
 * The base station cannot be reached, refuses, or has gone; the text says what to do, in one line that
 * does nothing to a screen, whatever the peer said in it. [retryAfterS]: when to try again, if it said so.
 */
class LinkException(message: String, val retryAfterS: Long? = null) : Exception(printable(message))

private const val SHOWN = 500

private fun printable(text: String): String =
    text.take(SHOWN).map { if (it.isISOControl() || it in '\u2028'..'\u202E' || it in '\u2066'..'\u2069') ' ' else it }.joinToString("")

/**
 * The connection is not there, or no more; the text says how that showed. [retryAfterS]: when to come
 * back, where the base station is there and said so.
 */
class LostException(message: String, val retryAfterS: Long? = null) : Exception(message)

/** Whether a base station can be heard. */
enum class LinkState {
    /** Not connected yet, or closed by this end. */
    CLOSED,

    /** Connected and greeted. */
    OPEN,

    /** The connection is lost, and a new one is being made. */
    LOST,

    /** Given up, or refused: the conversation needs a new connection, and keeps its text. */
    GONE,
}

/** A connection that carries binary messages. */
interface Link {
    /** Sends a message. Throws [LostException]. */
    suspend fun send(message: ByteString)

    /** The next message. Throws [LostException], or [LinkException] where another connection has taken the session. */
    suspend fun receive(): ByteString

    /** Closes the connection, and waits for nothing. */
    fun close()
}

/** Makes connections to a base station's address. Throws [LostException] where another attempt may help, else [LinkException]. */
fun interface Connect {
    suspend fun connect(url: String): Link
}
