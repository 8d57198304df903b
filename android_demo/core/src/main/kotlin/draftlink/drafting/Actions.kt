package draftlink.drafting

/**
 * What a window asks the device to do (docs/window.md, 5 to 8). It names positions and counts of tokens; it
 * never sees an id.
 */
internal sealed interface Action {
    /**
     * Draft so many [tokens] behind all that has been drafted, from the numbers of the epoch that
     * [begins] there; [fresh]: nothing drafted is in flight before them.
     */
    data class Draft(val tokens: Int, val begins: Int, val fresh: Boolean) : Action

    /** Take so many shown provisional [tokens], from number [first] on, as drafted. */
    data class Reuse(val first: Int, val tokens: Int) : Action

    /** Send the oldest [tokens] that were not sent as one block; with [waits], draft nothing behind it until its verdict. */
    data class Send(val tokens: Int, val waits: Boolean) : Action

    /** Send the next [tokens] of the path, where both ends write; [goesOn]: more come though nothing is heard. */
    data class Propose(val tokens: Int, val goesOn: Boolean) : Action

    /** Tell the base station who writes from here on: `stream`, or `draft`. */
    data class Switch(val mode: String) : Action

    /** The base station writes alone from here on, and nothing that was drafted is in flight. */
    data object GiveBack : Action

    /** Feed the draft the first [until] tokens of the history and propose the next one, which is not sent. */
    data class Follow(val until: Int, val begins: Int) : Action

    /** Show as provisional the drafted tokens from number [first] on. */
    data class Show(val first: Int) : Action

    /** Draft one token behind those that are shown, and show it; [apart]: from numbers that nothing else uses. */
    data class Guess(val begins: Int, val apart: Boolean) : Action

    /** Nothing is due until something comes, or until a time in seconds; null is for ever. */
    data class Wait(val untilS: Double?) : Action
}
