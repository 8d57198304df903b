package draftlink.app

import draftlink.transport.LinkState
import java.util.Locale

/** What goes on, as a person reads it beside a chat. */
object Numbers {
    private const val KILO = 1000.0
    private const val MOST_THERMAL = 6
    private val THERMAL = listOf("cool", "light", "moderate", "severe", "critical", "emergency", "shutdown")

    /** Of a text that is being written, or was. */
    fun of(state: ChatState, power: Power, locale: Locale = Locale.getDefault()): List<String> {
        val live = state.live
        val lines = ArrayList<String>()
        if (live.tokens > 0) {
            lines += String.format(locale, "%.1f tokens/s, %d tokens, %s", live.tokensPerS, live.tokens, live.mode)
            if (live.drafted > 0) lines += String.format(locale, "%.0f %% of drafted tokens right, %d of the text", KILO / 10 * live.alpha, live.drafted)
            lines += String.format(
                locale, "%.0f ms round trip, %s up, %s down", KILO * live.rttS, bytes(live.sentBytes, locale), bytes(live.receivedBytes, locale),
            )
        }
        val heat = power.celsius?.let { String.format(locale, "%.1f °C, ", it) }.orEmpty()
        lines += heat + THERMAL[power.thermal.coerceIn(0, MOST_THERMAL)] + ", battery ${power.level} %" + if (power.charging) ", charging" else ""
        return lines
    }

    /** The connection, in a word or two. */
    fun link(state: ChatState): String = when (state.link) {
        LinkState.CLOSED -> "not connected"
        LinkState.OPEN -> "connected"
        LinkState.LOST -> if (state.provisional) "connection lost; what is pale is not certain yet" else "connection lost, looking for it"
        LinkState.GONE -> "the base station is gone; what you send looks for it again"
    }

    private fun bytes(count: Long, locale: Locale): String = when {
        count < KILO -> "$count B"
        count < KILO * KILO -> String.format(locale, "%.1f kB", count / KILO)
        else -> String.format(locale, "%.1f MB", count / KILO / KILO)
    }
}
