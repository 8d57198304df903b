package draftlink.app

import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.combine
import kotlinx.coroutines.flow.distinctUntilChanged

/** What a person does next, so that something can be written. */
enum class Next {
    /** Join a base station. */
    JOIN,

    /** Take its draft. */
    FETCH,

    /** Wait: it is being taken. */
    WAIT,

    /** Chat. */
    CHAT,
}

/** Leads a person who has just installed the app, or joined another base station, from screen to screen. */
class Guide(joins: JoinModel, bundles: BundleModel, chat: ChatModel) {
    val next: Flow<Next> = combine(joins.state, bundles.state, chat.state) { _, bundle, said ->
        val fits = bundles.bundle != null && !said.otherDraft
        when {
            joins.joined == null -> Next.JOIN
            fits -> Next.CHAT
            bundle is BundleState.Asking || bundle is BundleState.Coming -> Next.WAIT
            else -> Next.FETCH
        }
    }.distinctUntilChanged()
}
