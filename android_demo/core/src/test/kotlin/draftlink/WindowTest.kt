package draftlink

import draftlink.drafting.Action
import draftlink.drafting.Controller
import draftlink.drafting.Decides
import draftlink.drafting.Estimates
import draftlink.drafting.Judged
import draftlink.drafting.Limits
import draftlink.drafting.Paths
import draftlink.drafting.Proposed
import draftlink.drafting.Window
import draftlink.drafting.Writer
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.math.abs

/** The windows of docs/window.md against their golden event logs: what is due at each step, to the number. */
class WindowTest {
    @Test
    fun `one end writes`() {
        val head = Golden.head("window")
        Golden.each("window", "vectors") { vector ->
            val window = window(vector, head)
            replay(vector, window) { event -> told(window, event) }
        }
    }

    @Test
    fun `both ends write`() {
        val head = Golden.head("paths")
        Golden.each("paths", "vectors") { vector ->
            val paths = paths(vector, head)
            replay(vector, paths) { event -> told(paths, event) }
        }
    }

    /** The control: with a link that is a third slower the same events lead to something else in some of them. */
    @Test
    fun `a window that knows of another link does something else`() {
        var found = 0
        val all = Golden.all("window", "vectors") { vector ->
            val window = window(vector, Golden.head("window"), slower = 1.3)
            if (runCatching { replay(vector, window) { told(window, it) } }.isFailure) found++
        }
        assertTrue(found > 3) { "$found of $all" }
    }

    /** What is due after each step is what the file says: decisions exactly, times to 1e-9. */
    private fun replay(vector: JsonObject, window: Decides, tell: Step.(JsonArray) -> List<Action>) {
        vector.array("steps").forEachIndexed { number, element ->
            val fields = element.jsonArray
            val step = Step(fields[0].double())
            val found = ArrayList<Any>()
            for (event in fields[3].jsonArray) found.addAll(step.tell(event.jsonArray))
            if (step.void) found.add(0, "void")
            if (step.leaves) found.add(0, "leave")
            val link = fields[2].jsonPrimitive.content
            do {
                val due = window.due(step.now, fields[1].jsonPrimitive.int, link != "lost", link == "unread")
                found.addAll(due)
            } while (due.none { it is Action.Wait || it is Action.Guess || it is Action.Reuse })
            val wanted = fields[4].jsonArray
            assertEquals(wanted.size, found.size) { "step $number: $found, where $wanted is due" }
            for ((mine, theirs) in found.zip(wanted)) assertTrue(same(mine, theirs.jsonArray)) { "step $number: $mine, where $theirs is due" }
        }
    }

    /** What a step tells, at a time. */
    private class Step(val now: Double) {
        var waitedS = 0.0
        var void = false
        var leaves = false
    }

    private fun same(mine: Any, theirs: JsonArray): Boolean {
        val values = theirs.drop(1).map { it.jsonPrimitive }
        val wanted = values.getOrNull(0)
        if (mine is Action.Wait) {
            val until = mine.untilS
            if (theirs[0].jsonPrimitive.content != "wait" || (until == null) != (wanted == JsonNull)) return false
            return until == null || abs(until - wanted!!.double) <= 1e-9 * abs(until)
        }
        val said: List<Any> = when (mine) {
            is Action.Draft -> listOf("draft", mine.tokens, mine.begins, mine.fresh)
            is Action.Reuse -> listOf("reuse", mine.first, mine.tokens)
            is Action.Send -> listOf("send", mine.tokens, mine.waits)
            is Action.Propose -> listOf("propose", mine.tokens, mine.goesOn)
            is Action.Switch -> listOf("switch", mine.mode)
            is Action.GiveBack -> listOf("give back")
            is Action.Follow -> listOf("follow", mine.until, mine.begins)
            is Action.Show -> listOf("show", mine.first)
            is Action.Guess -> listOf("guess", mine.begins, mine.apart)
            else -> listOf(mine)
        }
        return said.map { it.toString() } == listOf(theirs[0].jsonPrimitive.content) + values.map { it.content }
    }

    private fun Step.told(window: Window, event: JsonArray): List<Action> {
        val at = event.drop(1)
        when (val name = event[0].jsonPrimitive.content) {
            "waited" -> waitedS = at[0].double()
            "drafted" -> void = !window.drafted(now, at.map { proposed(it) }, waitedS)
            "reused" -> window.reused(at.map { proposed(it) })
            "guessed" -> window.guessed(at[0].flag())
            "followed" -> return listOfNotNull(window.followed(now, waitedS))
            "foretold" -> window.foretold(at[0].double(), at[1].flag())
            "told" -> window.told(at[0].double())
            "commit" -> window.commit(at[0].int(), at[1].int(), at[2].flag())
            "verdict" -> window.verdict(now, Judged(at[0].int(), at[1].flag(), at[2].flag(), at[3].double(), at[4].double()))
            "proceed" -> window.proceed(now, at[0].flag(), at[1].flag())
            "streamed" -> return listOfNotNull(window.streamed(now, at[0].int(), at[1].flag()))
            "switched" -> window.switched(now)
            else -> error("no event $name")
        }
        return emptyList()
    }

    private fun Step.told(paths: Paths, event: JsonArray): List<Action> {
        val at = event.drop(1)
        when (val name = event[0].jsonPrimitive.content) {
            "waited" -> waitedS = at[0].double()
            "drafted" -> void = !paths.drafted(now, at.map { proposed(it) }, waitedS)
            "written" -> {
                paths.heard(now)
                leaves = !paths.written(now, at[0].int(), at[1].int(), at[2].int(), at[3].double(), at[4].int())
            }
            "commit" -> paths.commit(at[0].int(), at[1].int(), at[2].flag())
            "lost" -> paths.lost()
            else -> error("no event $name")
        }
        return emptyList()
    }

    private fun proposed(element: JsonElement) = element.jsonArray.let { Proposed(it[0].double(), it[1].flag()) }

    private fun estimates(given: JsonObject, slower: Double = 1.0) = Estimates().apply {
        for ((name, level) in listOf("rtt" to rtt, "queue" to queue, "target" to target)) {
            val scale = if (name == "rtt") slower else 1.0
            for (sample in given.list(name)) level.add(sample.double() * scale)
        }
        for ((name, work) in listOf("draft" to draft, "verify" to verify)) {
            for (sample in given.list(name)) work.took(sample.jsonArray[0].double(), sample.jsonArray[1].flag())
        }
        toldStepS = given["step"]?.double() ?: 0.0
        for (sample in given.list("rows")) rows.add(sample.jsonArray[0].int(), sample.jsonArray[1].double())
        for (sample in given.list("acceptance")) {
            val (chance, accepted, rejected) = sample.jsonArray
            for (i in 0 until accepted.int() + rejected.int()) acceptance.judged(chance.double(), i < accepted.int())
        }
    }

    private fun window(vector: JsonObject, head: JsonObject, slower: Double = 1.0): Window {
        val limits = limits(head.inner("limits") + vector.inner("limits"))
        val given = vector.inner("controller")
        val (measured, foretold) = given["record"]?.jsonArray?.map { it.double() } ?: listOf(0.0, 0.0)
        val controller = Controller(
            estimates(head.inner("estimates").inner(vector.text("estimates")), slower),
            given["gamma"]?.int(), Writer.entries.first { it.said == given.text("writer") }, limits.follows,
            given["since"]?.int() ?: 0, given["dwell"]?.int() ?: Controller.DWELL, measured, foretold,
            given["here"]?.flag() ?: false, given["near"]?.flag() ?: false,
        )
        return Window(
            controller, limits, vector.int("length"), vector.at("started_s").double(), vector.at("now").double(),
            vector.flag("streams"), vector.flag("auto"), seconds(vector["offline_after_s"]),
        )
    }

    private fun paths(vector: JsonObject, head: JsonObject): Paths {
        val given = head.inner("given") + vector.inner("given")
        val gamma = given.getValue("gamma").takeIf { it != JsonNull }?.int()
        return Paths(
            Controller(estimates(head.inner("estimates").inner(vector.text("estimates"))), gamma),
            limits(head.inner("limits") + vector.inner("limits")), vector.int("length"),
            given.getValue("shared").flag(), given.getValue("here").flag(), given.getValue("step_s").double(), given.getValue("row_s").double(),
            given.getValue("price").double(), vector.at("started_s").double(), seconds(given["offline_after_s"]),
        )
    }

    private fun limits(said: Map<String, JsonElement>) = Limits(
        said.getValue("begins").int(), said.getValue("ends").int(), said.getValue("context").int(),
        said.getValue("message").int(), said["flight"]?.int() ?: 256, said["foretells"]?.flag() ?: true,
        said["corrects"]?.flag() ?: false, said["told"]?.flag() ?: false,
    )

    private fun seconds(value: JsonElement?): Double? = if (value == null || value == JsonNull) null else value.double()

    private fun JsonObject.list(key: String): List<JsonElement> = get(key)?.jsonArray ?: emptyList()

    private fun JsonElement.int(): Int = jsonPrimitive.int

    private fun JsonElement.flag(): Boolean = jsonPrimitive.boolean
}
