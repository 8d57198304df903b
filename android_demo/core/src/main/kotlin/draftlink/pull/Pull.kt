package draftlink.pull

import draftlink.model.Bundle
import draftlink.model.BundleException
import draftlink.model.Manifest
import draftlink.model.sha256
import draftlink.transport.LinkException
import draftlink.transport.LostException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.delay
import kotlinx.coroutines.runInterruptible
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.file.Files

/** How far a download is: [have] of the [bytes] of a [file], and so many of all of them. */
data class Progress(val file: String, val have: Long, val bytes: Long, val haveAll: Long, val all: Long)

/**
 * A draft bundle from a base station: each file checked, and begun again where it broke off. What comes is
 * written beside the place where the bundle will stand, and moved there when it is whole and has passed the
 * checks of every bundle. One at a time for a place. [pause] waits so many milliseconds.
 */
class Pull(private val station: Station, private val pause: suspend (Long) -> Unit = { delay(it) }) {
    /** What is offered. Throws [LinkException]. */
    suspend fun offer(): Offer = try {
        val data = runInterruptible(Dispatchers.IO) {
            station.get(PATH).use { answer ->
                val found = okio.Buffer()
                val part = ByteArray(PART)
                while (found.size <= Offer.MOST_BYTES) {
                    val count = answer.read(part)
                    if (count < 0) break
                    found.write(part, 0, count)
                }
                if (found.size > Offer.MOST_BYTES) throw LinkException("what is offered cannot be taken: it is longer than any")
                found.readUtf8()
            }
        }
        Offer.of(data)
    } catch (error: LostException) {
        throw LinkException("no base station at ${station.url} (${error.message}); check the address", error.retryAfterS)
    } catch (error: LinkException) {
        if (error.code != NONE) throw error
        throw LinkException("the base station offers no draft: start it with --offer, or copy one to this device", code = NONE)
    }

    /**
     * Takes the bundle of an [offer] to a [place], where nothing may be, and goes on with what was taken of it
     * before. [told] hears of each part, from another thread. Throws [LinkException], [BundleException], and
     * [IOException] for what cannot be written.
     */
    suspend fun pull(offer: Offer, place: File, told: (Progress) -> Unit = {}): Bundle {
        if (place.exists()) throw BundleException("$place is there already")
        val partial = File(place.absoluteFile.parentFile, ".${place.name}.partial-${offer.digest.take(16)}")
        if (!partial.isDirectory && !partial.mkdirs()) throw IOException("cannot write $partial")
        forgetOthers(place, partial)
        val missing = offer.bytes - offer.files.entries.sumOf { (name, file) -> minOf(File(partial, name).length(), file.bytes) }
        if (missing > partial.usableSpace) throw IOException("$missing bytes are to come, and ${partial.usableSpace} are free")
        try {
            var before = 0L
            for (name in offer.files.keys.sortedWith(compareBy({ it != Offer.MANIFEST }, { it }))) {
                take(offer, name, partial) { have -> told(Progress(name, have, offer.files.getValue(name).bytes, before + have, offer.bytes)) }
                before += offer.files.getValue(name).bytes
                if (name == Offer.MANIFEST) agrees(partial, offer)
            }
            runInterruptible(Dispatchers.IO) { Bundle.load(partial) }
        } catch (error: BundleException) {
            partial.deleteRecursively() // nothing of it will do
            throw error
        }
        if (!partial.renameTo(place)) throw IOException("cannot move $partial to $place")
        return runInterruptible(Dispatchers.IO) { Bundle.load(place) }
    }

    /** What was begun of other bundles for the same place. */
    private fun forgetOthers(place: File, partial: File) {
        val others = partial.parentFile.listFiles { file -> file.name.startsWith(".${place.name}.partial-") && file != partial }
        others?.filterNot { Files.isSymbolicLink(it.toPath()) }?.forEach { it.deleteRecursively() }
    }

    /** Throws [BundleException] unless the manifest tells of the files that are offered, and is usable. */
    private fun agrees(partial: File, offer: Offer) {
        val manifest = Manifest.of(File(partial, Offer.MANIFEST).readText())
        if (manifest.files != offer.files - Offer.MANIFEST) throw BundleException("the bundle's manifest tells of other files than are offered; not taken")
    }

    /** A whole file, from where it broke off. */
    private suspend fun take(offer: Offer, name: String, partial: File, told: (Long) -> Unit) {
        val file = offer.files.getValue(name)
        val path = File(partial, name)
        var failed = 0
        while (true) {
            val before = have(path, file.bytes)
            told(before)
            try {
                if (before < file.bytes || !path.exists()) runInterruptible(Dispatchers.IO) { more(name, file.sha256, file.bytes, path, told) }
                break
            } catch (error: LostException) {
                failed = if (have(path, file.bytes) <= before) failed + 1 else 0
                if (failed == ATTEMPTS) {
                    throw LinkException("${station.url} does not go on with $name (${error.message}); what has come is kept", error.retryAfterS)
                }
                pause(error.retryAfterS?.times(1000) ?: minOf(LONGEST_MS, FIRST_MS shl failed))
            }
        }
        if (runInterruptible(Dispatchers.IO) { sha256(path) } != file.sha256) {
            path.delete()
            throw LinkException("$name is not what was offered (its checksum differs) and was thrown away; ask for it again")
        }
    }

    /** Bytes that are here; none of a file that has more than it may, or that leads elsewhere. */
    private fun have(path: File, most: Long): Long {
        if (path.length() <= most && !Files.isSymbolicLink(path.toPath())) return path.length()
        Files.delete(path.toPath())
        return 0
    }

    /** What is missing of a file, or what comes of it. */
    private fun more(name: String, sha256: String, bytes: Long, path: File, told: (Long) -> Unit) {
        val begun = have(path, bytes)
        station.get("$PATH/$sha256", begun).use { answer ->
            if (answer.total != bytes || (answer.begin != 0L && answer.begin != begun)) {
                throw LinkException("${station.url} sends $name in another size than it offers")
            }
            RandomAccessFile(path, "rw").use { into ->
                into.setLength(answer.begin) // all of it comes where no part could be had
                into.seek(answer.begin)
                var have = answer.begin
                val part = ByteArray(PART)
                while (true) {
                    val count = answer.read(part)
                    if (count < 0) break
                    if (have + count > bytes) throw LinkException("${station.url} sends more of $name than it offers")
                    into.write(part, 0, count)
                    have += count
                    told(have)
                }
                into.fd.sync()
                if (have < bytes) throw LostException("the connection ended")
            }
        }
    }

    private companion object {
        const val PATH = "/v1/bundle"
        const val NONE = "HTTP 404"
        const val PART = 1 shl 16
        const val ATTEMPTS = 9 // in a row that bring nothing
        const val FIRST_MS = 100L
        const val LONGEST_MS = 5000L
    }
}
