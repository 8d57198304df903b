package draftlink.app

import draftlink.device.Mode
import draftlink.device.Options
import draftlink.model.Provider
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow

/** How hot and how charged a phone is. [level]: 0 to 100; [thermal]: 0 (none) to 6 (shutdown), as Android counts. */
data class Power(val level: Int = 100, val charging: Boolean = true, val celsius: Double? = null, val thermal: Int = 0) {
    /** Whether drafting should rest: it costs the battery, and heats. */
    val low: Boolean get() = thermal >= SEVERE || (!charging && level < LOW_LEVEL)

    private companion object {
        const val SEVERE = 3
        const val LOW_LEVEL = 20
    }
}

/**
 * What a person may choose. [spare]: the base station writes alone while the battery is low or the phone is
 * hot. [offlineAfterS]: seconds of silence after which the draft writes on alone, provisionally; null: never.
 */
data class Settings(
    val provider: Provider = Provider.CPU,
    val threads: Int = 2,
    val spare: Boolean = true,
    val offlineAfterS: Double? = 2.0,
    val maxTokens: Int = 512,
) {
    /** How a text is asked for with the phone in this state. The text does not depend on it. */
    fun options(power: Power): Options = Options(
        maxTokens = maxTokens, mode = if (spare && power.low) Mode.STREAM else Mode.AUTO, offlineAfterS = offlineAfterS,
    )
}

/** Where settings are kept, by name. */
interface Kept {
    fun get(name: String): String?

    fun put(name: String, value: String?)
}

/** The settings' screen, on a phone with so many [cores] and an onnxruntime with [providers]. */
class SettingsModel(private val kept: Kept, private val cores: Int, val providers: Set<Provider>) {
    private val found = MutableStateFlow(load())

    val state: StateFlow<Settings> = found.asStateFlow()

    /** Threads that may be chosen. */
    val threads: IntRange get() = 1..cores.coerceIn(1, MOST_THREADS)

    /** How long an answer may be, in tokens, to choose from. */
    val lengths = listOf(128, 256, 512, 1024, 2048, 4096)

    /** Takes a change, as far as this phone has it; whether the draft has to be loaded anew. */
    fun change(change: (Settings) -> Settings): Boolean {
        val before = found.value
        val now = fitting(change(before))
        found.value = now
        kept.put("provider", now.provider.said)
        kept.put("threads", now.threads.toString())
        kept.put("spare", now.spare.toString())
        kept.put("offline_after_s", now.offlineAfterS?.toString() ?: NEVER)
        kept.put("max_tokens", now.maxTokens.toString())
        return now.provider != before.provider || now.threads != before.threads
    }

    private fun load(): Settings {
        val usual = Settings()
        return fitting(
            Settings(
                Provider.entries.firstOrNull { it.said == kept.get("provider") } ?: usual.provider,
                kept.get("threads")?.toIntOrNull() ?: usual.threads,
                kept.get("spare")?.toBooleanStrictOrNull() ?: usual.spare,
                kept.get("offline_after_s").let { if (it == NEVER) null else it?.toDoubleOrNull() ?: usual.offlineAfterS },
                kept.get("max_tokens")?.toIntOrNull() ?: usual.maxTokens,
            ),
        )
    }

    private fun fitting(wanted: Settings) = wanted.copy(
        provider = if (wanted.provider in providers) wanted.provider else Provider.CPU,
        threads = wanted.threads.coerceIn(threads),
        offlineAfterS = wanted.offlineAfterS?.takeIf { it.isFinite() }?.coerceIn(0.0, LONGEST_S),
        maxTokens = wanted.maxTokens.coerceIn(1, MOST_TOKENS),
    )

    private companion object {
        const val NEVER = "never"
        const val MOST_THREADS = 8
        const val MOST_TOKENS = 32_768
        const val LONGEST_S = 3600.0
    }
}
