package draftlink.app

import draftlink.device.Device
import draftlink.model.Bundle
import draftlink.model.OrtDraftModel
import draftlink.model.Provider
import draftlink.text.Tokenizer
import draftlink.transport.Client
import draftlink.transport.OkLink
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import java.io.Closeable

/**
 * The draft of a bundle, in memory as long as it is needed: conversations come and go with connections, and
 * loading takes a second and more. One thread's, as to calls; [work]: where it computes.
 */
class Engine(private val work: CoroutineDispatcher = Dispatchers.Default) : Closeable {
    private class Loaded(val bundle: Bundle, val provider: Provider, val threads: Int, val model: OrtDraftModel, val tokenizer: Tokenizer)

    private var loaded: Loaded? = null

    /** Whether a draft is in memory. */
    val isLoaded: Boolean get() = loaded != null

    /**
     * A conversation with the base station of an [invitation], greeted. Throws
     * [draftlink.model.BundleException] and [draftlink.transport.LinkException].
     */
    suspend fun open(bundle: Bundle, invitation: Invitation, settings: Settings, power: () -> Power): Talk {
        val draft = load(bundle, settings)
        // What is joined in clear was joined so by its switch.
        val connect = OkLink.connector(invitation.token, invitation.pin, clear = !invitation.secure)
        val client = Client(invitation.url, bundle.manifest.tokenizerHash, draft.model.vocabSize, connect)
        val device = Device(draft.model, client, bundle.manifest.eosIds, work)
        device.open()
        val sampling = bundle.manifest.sampling
        return Talk(device, draft.tokenizer, bundle.manifest.chat, client.welcome.bosIds) {
            settings.options(power()).let { if (sampling == null) it else it.copy(sampling = sampling) }
        }
    }

    private suspend fun load(bundle: Bundle, settings: Settings): Loaded {
        loaded?.let {
            if (it.bundle === bundle && it.provider == settings.provider && it.threads == settings.threads) return it
        }
        close()
        val new = withContext(work) {
            val tokenizer = Tokenizer.load(bundle.tokenizer)
            val model = OrtDraftModel.load(bundle, settings.threads, settings.provider)
            Loaded(bundle, settings.provider, settings.threads, model, tokenizer)
        }
        loaded = new
        return new
    }

    /** Lets go of the draft. No conversation of it may be writing. */
    override fun close() {
        loaded?.model?.close()
        loaded = null
    }
}
