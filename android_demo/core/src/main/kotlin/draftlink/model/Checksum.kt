package draftlink.model

import okio.ByteString.Companion.toByteString
import java.io.File
import java.security.MessageDigest

private const val CHUNK = 1 shl 16

/** SHA-256 of a [file]'s bytes, in hex, as manifests and offers state it. Throws [java.io.IOException]. */
internal fun sha256(file: File): String {
    val sum = MessageDigest.getInstance("SHA-256")
    val chunk = ByteArray(CHUNK)
    file.inputStream().use { source ->
        while (true) {
            val count = source.read(chunk)
            if (count < 0) return sum.digest().toByteString().hex()
            sum.update(chunk, 0, count)
        }
    }
}
