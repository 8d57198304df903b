package draftlink.app

import draftlink.device.Live
import draftlink.device.Mode
import draftlink.model.Provider
import draftlink.transport.LinkState
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Locale

class SettingsTest {
    private val both = setOf(Provider.CPU, Provider.XNNPACK)

    @Test
    fun `what is chosen is kept, as far as the phone has it`() {
        val kept = MemoryKept()
        val model = SettingsModel(kept, 4, both)
        assertEquals("Settings(provider=CPU, threads=2, spare=true, offlineAfterS=2.0, maxTokens=512)", model.state.value.toString())
        assertTrue(model.change { it.copy(provider = Provider.XNNPACK, threads = 3) }) // the draft is loaded anew
        assertFalse(model.change { it.copy(spare = false, offlineAfterS = null) })
        assertTrue(model.change { it.copy(threads = 99) })
        assertEquals("Settings(provider=XNNPACK, threads=4, spare=false, offlineAfterS=null, maxTokens=512)", model.state.value.toString())
        assertEquals(model.state.value, SettingsModel(kept, 4, both).state.value)
        // Another phone, to which the settings came with a backup.
        assertEquals("Settings(provider=CPU, threads=1, spare=false, offlineAfterS=null, maxTokens=512)", SettingsModel(kept, 1, setOf(Provider.CPU)).state.value.toString())
    }

    @Test
    fun `what was kept by something else does no harm`() {
        val kept = MemoryKept()
        for (name in listOf("provider", "threads", "spare", "offline_after_s", "max_tokens")) kept.put(name, "nonsense")
        assertEquals(Settings(), SettingsModel(kept, 4, both).state.value)
        kept.put("offline_after_s", "NaN")
        kept.put("max_tokens", "-5")
        val found = SettingsModel(kept, 4, both).state.value
        assertNull(found.offlineAfterS)
        assertEquals(1, found.maxTokens)
    }

    @Test
    fun `a phone that is low or hot does not draft, unless it shall`() {
        val settings = Settings()
        val modes = listOf(
            Power(), Power(level = 19, charging = false), Power(level = 20, charging = false), Power(level = 5), Power(thermal = 2), Power(thermal = 3),
        ).map { settings.options(it).mode }
        assertEquals(listOf(Mode.AUTO, Mode.STREAM, Mode.AUTO, Mode.AUTO, Mode.AUTO, Mode.STREAM), modes)
        assertEquals(Mode.AUTO, settings.copy(spare = false).options(Power(thermal = 6)).mode)
        assertEquals(512 to 2.0, settings.options(Power()).let { it.maxTokens to it.offlineAfterS })
    }

    @Test
    fun `numbers are told in words`() {
        val live = Live("both", 40, 30, 0, 0.75, 41.26, 0.0123, 1_234, 2_500_000, 1)
        val power = Power(81, false, 31.5, 1)
        assertEquals(
            listOf(
                "41.3 tokens/s, 40 tokens, both", "75 % of drafted tokens right, 30 of the text", "12 ms round trip, 1.2 kB up, 2.5 MB down",
                "31.5 °C, light, battery 81 %",
            ),
            Numbers.of(ChatState(live = live), power, Locale.ROOT),
        )
        assertEquals(listOf("cool, battery 100 %, charging"), Numbers.of(ChatState(), Power(), Locale.ROOT))
        assertEquals(4, LinkState.entries.map { Numbers.link(ChatState(link = it)) }.toSet().size)
    }
}
