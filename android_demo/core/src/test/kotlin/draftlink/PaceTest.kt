package draftlink

import draftlink.device.Drafter
import draftlink.device.Proposal
import draftlink.model.Bundle
import draftlink.model.OrtDraftModel
import draftlink.noise.Draws
import draftlink.wire.Sampling
import draftlink.wire.Start
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIf
import java.io.File

/** The JVM's side of `bench/android.py`, where that has asked for it: what a drafted token takes, turn by turn. */
@EnabledIf("asked")
class PaceTest {
    private val folder = File(System.getProperty("draftlink.vectors"))

    @Test
    fun turns() {
        val asked = Json.parseToJsonElement(File(folder, "pace.json").readText()).jsonObject
        OrtDraftModel.load(Bundle.load(File(asked.text("bundle"))), asked.int("threads")).use { model ->
            val drafters = asked.objects("runs").associate { it.text("name") to drafter(it, model) }
            File(folder, "turn").bufferedReader().use { turn ->
                while (turn.readLine() == "go") {
                    val found = drafters.mapValues { (_, drafter) -> times(asked, drafter, model) }
                    File(folder, "turned").appendText("${json(found)}\n")
                }
            }
        }
    }

    private fun drafter(run: JsonObject, model: OrtDraftModel): Drafter {
        val sampling = Sampling(temperature = run.at("temperature").double())
        val start = Start(1, 0, listOf(1), sampling, schemeOf(run.inner("scheme")), "draft", 100, emptyList(), 1.toBigInteger())
        return Drafter(model, start, model.vocabSize, Draws.keyFromSeed(1.toBigInteger(), "device"))
    }

    /** Seconds a token of whole drafts, and of bare forwards of the same tokens. */
    private fun times(asked: JsonObject, drafter: Drafter, model: OrtDraftModel): Map<String, List<Double>> {
        val history = asked.ints("history")
        val gamma = asked.int("gamma")
        val whole = ArrayList<Double>()
        val forward = ArrayList<Double>()
        drafter.rollback(0)
        model.forward(history.dropLast(1))
        for (repeat in -1 until asked.int("repeats")) { // the first lets the id model learn the history
            drafter.rollback(history.size - 1)
            var drafted = emptyList<Proposal>()
            val took = seconds {
                drafted = drafter.propose(history, gamma, history.size.toLong())
                drafter.encode(history, drafted.map { it.drafted })
            }
            drafter.rollback(history.size - 1)
            val fed = listOf(history.last()) + drafted.dropLast(1).map { it.drafted.token }
            val bare = seconds { for (token in fed) model.forward(listOf(token)) }
            if (repeat < 0) continue
            whole += took / gamma
            forward += bare / gamma
        }
        return mapOf("forward" to forward, "whole" to whole)
    }

    private inline fun seconds(work: () -> Unit): Double {
        val begun = System.nanoTime()
        work()
        return (System.nanoTime() - begun) * 1e-9
    }

    companion object {
        @JvmStatic
        fun asked(): Boolean = System.getProperty("draftlink.vectors").orEmpty()
            .let { it.isNotEmpty() && File(it, "pace.json").exists() }
    }
}
