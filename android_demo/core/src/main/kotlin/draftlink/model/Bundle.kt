package draftlink.model

import java.io.File
import java.io.IOException
import java.nio.file.Files

/**
 * A draft bundle in a [folder], which may be used: its files are those of its [manifest], whole, and
 * its check against PyTorch passed.
 */
class Bundle private constructor(val folder: File, val manifest: Manifest) {
    /** The ONNX file. */
    val graph: File get() = File(folder, GRAPH)

    /** The tokenizer's file. */
    val tokenizer: File get() = File(folder, TOKENIZER)

    companion object {
        private const val MANIFEST = "manifest.json"
        private const val GRAPH = "model.onnx"
        private const val TOKENIZER = "tokenizer.json"
        private const val MAX_MANIFEST = 1L shl 20

        /** Reads and verifies a bundle's folder. Throws [BundleException]. */
        fun load(folder: File): Bundle = try {
            own(folder, MANIFEST)
            val size = File(folder, MANIFEST).length()
            if (size > MAX_MANIFEST) throw BundleException("the manifest of $folder has over $MAX_MANIFEST bytes")
            val manifest = Manifest.of(File(folder, MANIFEST).readText())
            verify(folder, manifest)
            Bundle(folder, manifest)
        } catch (error: IOException) {
            throw BundleException("$folder cannot be read (${error.message})")
        }

        private fun verify(folder: File, manifest: Manifest) {
            for (name in listOf(GRAPH, TOKENIZER)) {
                if (name !in manifest.files) throw BundleException("the manifest of $folder does not list $name")
            }
            for ((name, file) in manifest.files) {
                own(folder, name)
                // Its size first: a file of another one need not be read to its end.
                val found = File(folder, name)
                if (found.length() != file.bytes || sha256(found) != file.sha256) {
                    throw BundleException("$found is corrupt (its checksum differs); get the bundle again")
                }
            }
        }

        /** Throws [BundleException] unless this is a file in the bundle's own folder, and no link. */
        private fun own(folder: File, name: String) {
            val file = File(folder, name)
            if (File(name).name != name || !file.isFile) throw BundleException("$folder is no draft bundle: it lacks $name")
            if (Files.isSymbolicLink(file.toPath())) throw BundleException("$file is a link; a bundle holds its files itself")
        }
    }
}
