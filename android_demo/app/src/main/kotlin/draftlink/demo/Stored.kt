package draftlink.demo

import android.content.SharedPreferences
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import android.util.Base64
import draftlink.app.Invitation
import draftlink.app.InvitationException
import draftlink.app.Joins
import draftlink.app.Kept
import java.security.GeneralSecurityException
import java.security.KeyStore
import javax.crypto.Cipher
import javax.crypto.KeyGenerator
import javax.crypto.SecretKey
import javax.crypto.spec.GCMParameterSpec

/** Settings, by name. */
class StoredSettings(private val file: SharedPreferences) : Kept {
    override fun get(name: String): String? = file.getString(name, null)

    override fun put(name: String, value: String?) = file.edit().putString(name, value).apply()
}

/** What is joined. Its token is sealed with a key that never leaves the phone's keystore. */
class StoredJoin(private val file: SharedPreferences) : Joins {
    override fun load(): Invitation? {
        val url = file.getString(URL, null) ?: return null
        return try {
            Invitation.of(url, file.getString(TOKEN, null)?.let { opened(it) }, file.getString(PIN, null))
        } catch (_: GeneralSecurityException) {
            null // the keystore has another key now, such as after a restore: join again
        } catch (_: IllegalArgumentException) {
            null
        } catch (_: InvitationException) {
            null
        }
    }

    override fun save(invitation: Invitation) {
        file.edit()
            .putString(URL, invitation.url)
            .putString(TOKEN, invitation.token?.let { sealed(it) })
            .putString(PIN, invitation.pin)
            .apply()
    }

    override fun forget() {
        file.edit().clear().apply()
        KeyStore.getInstance(STORE).apply { load(null) }.deleteEntry(KEY)
    }

    private fun sealed(token: String): String {
        val cipher = Cipher.getInstance(CIPHER).apply { init(Cipher.ENCRYPT_MODE, key()) } // its nonce is the keystore's
        return Base64.encodeToString(cipher.iv + cipher.doFinal(token.toByteArray()), Base64.NO_WRAP)
    }

    private fun opened(sealed: String): String {
        val data = Base64.decode(sealed, Base64.NO_WRAP)
        val spec = GCMParameterSpec(TAG_BITS, data, 0, minOf(NONCE, data.size))
        val cipher = Cipher.getInstance(CIPHER).apply { init(Cipher.DECRYPT_MODE, key(), spec) }
        return String(cipher.doFinal(data.drop(NONCE).toByteArray()))
    }

    private fun key(): SecretKey {
        val store = KeyStore.getInstance(STORE).apply { load(null) }
        (store.getKey(KEY, null) as? SecretKey)?.let { return it }
        val made = KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, STORE)
        made.init(
            KeyGenParameterSpec.Builder(KEY, KeyProperties.PURPOSE_ENCRYPT or KeyProperties.PURPOSE_DECRYPT)
                .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
                .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
                .build(),
        )
        return made.generateKey()
    }

    private companion object {
        const val STORE = "AndroidKeyStore"
        const val KEY = "draftlink token"
        const val CIPHER = "AES/GCM/NoPadding"
        const val NONCE = 12
        const val TAG_BITS = 128
        const val URL = "url"
        const val TOKEN = "token"
        const val PIN = "pin"
    }
}
