package draftlink.app

import draftlink.model.Bundle
import draftlink.model.BundleException
import draftlink.model.OrtDraftModel
import draftlink.pull.Offer
import draftlink.pull.Progress
import draftlink.pull.Pull
import draftlink.transport.LinkException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch
import kotlinx.coroutines.runInterruptible
import java.io.File
import java.io.IOException

/** What the screen shows on which a draft is fetched. Sizes in bytes. */
sealed interface BundleState {
    /** There is none yet. */
    data object Missing : BundleState

    /** The base station is asked what it offers. */
    data object Asking : BundleState

    /** It offers this. */
    data class Offered(val name: String, val bytes: Long) : BundleState

    /** It comes: [have] of all [bytes]. */
    data class Coming(val name: String, val file: String, val have: Long, val bytes: Long) : BundleState

    /** It is here. [chat]: its chats can be written; else plain text alone. */
    data class Ready(val name: String, val chat: Boolean) : BundleState

    /** It is not; what has come is kept where [again] may help. */
    data class Failed(val why: String, val again: Boolean) : BundleState
}

/** Where a bundle comes from. Throws as [Pull] does. */
interface Source {
    suspend fun offer(): Offer

    suspend fun pull(offer: Offer, place: File, told: (Progress) -> Unit): Bundle

    /** A base station's. */
    class Of(private val pull: Pull) : Source {
        override suspend fun offer() = pull.offer()

        override suspend fun pull(offer: Offer, place: File, told: (Progress) -> Unit) = pull.pull(offer, place, told)
    }
}

/** The draft in a folder [place]: fetched, checked, and there. */
class BundleModel(private val scope: CoroutineScope, private val place: File) {
    private val found = MutableStateFlow<BundleState>(BundleState.Missing)
    private var offer: Offer? = null
    private var work: Job? = null
    private var looking: Job? = null

    /** The bundle that is here, also while another one is asked for or comes. */
    var bundle: Bundle? = null
        private set

    val state: StateFlow<BundleState> = found.asStateFlow()

    /** Looks for what is here already; what is asked for meanwhile waits for it. */
    fun look() {
        begin {
            if (place.exists()) ready(place.name, runInterruptible(Dispatchers.IO) { Bundle.load(place) })
            else found.value = BundleState.Missing
        }
        looking = work
    }

    /** Asks what a base station offers. */
    fun ask(source: Source) = begin {
        found.value = BundleState.Asking
        val said = source.offer()
        offer = said
        found.value = BundleState.Offered(said.name, said.bytes)
    }

    /** Takes what is offered, in the place of what is here; asks first where it has not. */
    fun take(source: Source) = begin {
        val said = offer ?: source.offer().also { offer = it }
        found.value = BundleState.Coming(said.name, "", 0, said.bytes)
        val new = File(place.absoluteFile.parentFile, "${place.name}.new")
        new.deleteRecursively()
        source.pull(said, new) { found.value = BundleState.Coming(said.name, it.file, it.haveAll, it.all) }
        swap(new, said.name)
    }

    /** Takes the bundle in a [folder], such as one that was copied to the phone. */
    fun copy(folder: File) = begin {
        found.value = BundleState.Coming(folder.name, "", 0, 0)
        val new = File(place.absoluteFile.parentFile, "${place.name}.new")
        new.deleteRecursively()
        val whole = runInterruptible(Dispatchers.IO) {
            Bundle.load(folder)
            folder.copyRecursively(new)
            Bundle.load(new) // it was a stranger's folder: what counts is what has come
        }
        OrtDraftModel.runnable(whole.manifest)
        swap(new, folder.name)
    }

    /** Stops what is under way; what has come is kept. */
    fun stop() {
        work?.cancel()
    }

    /** What was here before is usable until now. */
    private suspend fun swap(new: File, name: String) {
        bundle = null
        place.deleteRecursively()
        if (!new.renameTo(place)) throw IOException("cannot move $new to $place")
        ready(name, runInterruptible(Dispatchers.IO) { Bundle.load(place) })
    }

    private fun ready(name: String, whole: Bundle) {
        OrtDraftModel.runnable(whole.manifest)
        bundle = whole
        offer = null
        found.value = BundleState.Ready(name, whole.manifest.chat != null)
    }

    private fun begin(what: suspend () -> Unit) {
        val before = work
        work = scope.launch {
            if (before !== looking) before?.cancel()
            before?.join() // one at a time for a place
            try {
                what()
            } catch (error: CancellationException) {
                found.value = BundleState.Failed("stopped; what has come is kept", true)
                throw error
            } catch (error: LinkException) {
                found.value = BundleState.Failed(error.message.orEmpty(), true)
            } catch (error: BundleException) {
                offer = null
                found.value = BundleState.Failed(error.message.orEmpty(), false)
            } catch (error: IOException) {
                found.value = BundleState.Failed(error.message.orEmpty(), true)
            }
        }
    }
}
