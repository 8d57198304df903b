package draftlink.demo

import android.os.Bundle
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Spinner
import android.widget.Switch
import draftlink.app.Settings
import kotlinx.coroutines.CoroutineScope

/** What a person may choose. */
class SettingsActivity : Screen() {
    private val providers by lazy { app.settings.providers.toList() }
    private val threads by lazy { app.settings.threads.toList() }
    private val lengths by lazy { app.settings.lengths }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.settings)
        choice(R.id.provider, providers.map { it.said }) { place -> change { it.copy(provider = providers[place]) } }
        choice(R.id.threads, threads.map { it.toString() }) { place -> change { it.copy(threads = threads[place]) } }
        choice(R.id.length, lengths.map { it.toString() }) { place -> change { it.copy(maxTokens = lengths[place]) } }
        findViewById<Switch>(R.id.spare).setOnCheckedChangeListener { _, on -> change { it.copy(spare = on) } }
        findViewById<Switch>(R.id.offline).setOnCheckedChangeListener { _, on ->
            change { it.copy(offlineAfterS = if (on) it.offlineAfterS ?: Settings().offlineAfterS else null) }
        }
    }

    private fun change(how: (Settings) -> Settings) {
        if (app.settings.change(how)) app.chat.renew()
    }

    private fun choice(place: Int, words: List<String>, chosen: (Int) -> Unit) {
        val spinner = findViewById<Spinner>(place)
        spinner.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, words)
        spinner.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = chosen(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    override fun CoroutineScope.shown() = show(app.settings.state) { state ->
        findViewById<Spinner>(R.id.provider).setSelection(providers.indexOf(state.provider))
        findViewById<Spinner>(R.id.threads).setSelection(threads.indexOf(state.threads))
        findViewById<Spinner>(R.id.length).setSelection(lengths.indexOfLast { it <= state.maxTokens }.coerceAtLeast(0))
        findViewById<Switch>(R.id.spare).isChecked = state.spare
        findViewById<Switch>(R.id.offline).isChecked = state.offlineAfterS != null
    }
}
