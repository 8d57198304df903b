package draftlink.pull

import draftlink.model.BundleFile
import draftlink.text.Trees
import draftlink.transport.LinkException
import draftlink.wire.Fields
import draftlink.wire.MalformedException
import okio.ByteString.Companion.encodeUtf8

/**
 * What a base station offers (docs/protocol.md, 16): a bundle's [name], and its [files] by name, the
 * manifest among them. A stranger's word: [of] takes no name that leads anywhere.
 */
data class Offer(val name: String, val files: Map<String, BundleFile>) {
    /** Of all files together. */
    val bytes: Long get() = files.values.sumOf { it.bytes }

    /** SHA-256, in hex, of names and contents; what the bundle is called does not count. */
    val digest: String get() = files.toSortedMap().entries
        .joinToString("") { (name, file) -> "$name ${file.sha256} ${file.bytes}\n" }.encodeUtf8().sha256().hex()

    companion object {
        const val MANIFEST = "manifest.json"

        /** The most bytes of an offer, and of a manifest. */
        const val MOST_BYTES = 1L shl 20
        private const val FORMAT = 1L
        private const val MOST_FILES = 200
        private const val MOST_FILE_BYTES = 1L shl 40
        private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
        private val DIGEST = Regex("[0-9a-f]{64}")
        private val DEVICES = Regex("(?:con|prn|aux|nul|com\\d|lpt\\d)(?:\\..*)?", RegexOption.IGNORE_CASE)

        /** Whether it can name a bundle, or a file of one, in any folder of any system. */
        fun isName(text: String): Boolean = NAME.matches(text) && !text.endsWith(".") && !DEVICES.matches(text)

        /** The offer that a [text] of JSON is. Throws [LinkException]. */
        fun of(text: String): Offer = try {
            val fields = Fields(Trees.plain(Trees.of(text)))
            val files = fields.map("files")
            val found = Offer(fields.string("name"), files.keys.associateWith { file(files.map(it)) })
            check(found, fields.long("format"))
            found
        } catch (error: MalformedException) {
            throw LinkException("what is offered cannot be taken: ${error.message}")
        } catch (error: IllegalArgumentException) { // JSON's own among it
            throw LinkException("what is offered cannot be taken: ${error.message}")
        }

        private fun file(fields: Fields) = BundleFile(fields.string("sha256"), fields.long("bytes"))

        private fun check(offer: Offer, format: Long) {
            require(format == FORMAT) { "it has format $format, this is $FORMAT" }
            require(isName(offer.name)) { "it has a name that cannot name a bundle" }
            require(offer.files.size in 1..MOST_FILES && MANIFEST in offer.files) { "it has not 1 to $MOST_FILES files, with $MANIFEST among them" }
            require(offer.files.keys.map { it.lowercase() }.toSet().size == offer.files.size) { "two of its files have one name, but for capitals" }
            for ((name, file) in offer.files) {
                require(isName(name)) { "it has a name that cannot name a file" }
                require(file.bytes in 0..MOST_FILE_BYTES && DIGEST.matches(file.sha256)) { "$name has no size or checksum that can be" }
            }
            require(offer.files.getValue(MANIFEST).bytes <= MOST_BYTES) { "its $MANIFEST is longer than any" }
        }
    }
}
