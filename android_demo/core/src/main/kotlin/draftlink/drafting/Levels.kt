package draftlink.drafting

/**
 * A duration in seconds that is sampled again and again (docs/window.md, 2.1). [typical]: the median of the
 * last samples, of two the lower; 0 before the first. [mean]: what it costs on average, stalls included, as if
 * so many had been [punctual] beside them.
 */
internal open class Level(private val punctual: Double = 0.0) {
    private val samples = ArrayDeque<Double>()
    private var beyondS = 0.0
    private var weight = PUNCTUAL

    var typical = 0.0
        private set
    var mean = 0.0
        private set

    /** Samples that it looks back on. */
    val size: Int get() = samples.size

    /** By how much a sample exceeds the typical one, on average: remembered for longer than the level. */
    val excess: Double get() = beyondS / weight

    /** A sample. Nothing takes no time: clocks are coarse, and estimates are taken off it. */
    fun add(seconds: Double) {
        samples += maxOf(seconds, LEAST_S)
        if (samples.size > KEPT) samples.removeFirst()
        turn()
        val ordered = samples.sorted()
        typical = ordered[(ordered.size - 1) / 2]
        val most = FAR * typical
        mean = if (ordered.size < FEW) typical
        else (ordered.sumOf { minOf(it, most) } + punctual * typical) / (ordered.size + punctual)
        beyondS = MEMORY * beyondS + maxOf(minOf(samples.last(), FAR * typical) - typical, 0.0)
        weight = MEMORY * weight + 1.0
    }

    /** It is known not to take longer: a sample, where it was taken to. Whether it was. */
    fun atMost(seconds: Double): Boolean {
        val shorter = seconds > 0.0 && seconds < typical
        if (shorter) add(seconds)
        return shorter
    }

    /** It is known to be another one from here on. */
    fun became(seconds: Double) {
        samples.clear()
        add(seconds)
    }

    /** Forgets what came before the last three samples, where these are far from all of it. */
    private fun turn() {
        val before = samples.dropLast(SOME)
        if (before.size < SOME) return
        val last = samples.takeLast(SOME)
        if (last.max() < before.min() / OTHER || last.min() > OTHER * before.max()) {
            samples.clear()
            samples.addAll(last)
        }
    }

    companion object {
        const val SOME = 3 // so many samples
        private const val OTHER = 2.0 // that are so many times off all others tell of a change
        const val KEPT = 31
        const val FEW = 8
        const val MEMORY = 1.0 - 1.0 / 150.0 // what a sample weighs after the next one
        private const val LEAST_S = 1e-6
        private const val FAR = 8.0 // times the typical value: as much of a sample counts, at the most
        const val PUNCTUAL = 8.0 // as if so many samples had been typical before the first
    }
}

/**
 * What one end does (2.2): all samples, and apart those with the other end idle, or at work too. The two
 * differ where both ends share a machine.
 */
internal class Work : Level() {
    private val alone = Level()
    private val beside = Level()

    /** A sample; [beside] the other end's work, or not, or null for neither. */
    fun took(seconds: Double, beside: Boolean?) {
        add(seconds)
        if (beside != null) sorted(seconds, beside)
    }

    /** Of a sample that [took] was told of it is known by now. */
    fun sorted(seconds: Double, beside: Boolean) = (if (beside) this.beside else alone).add(seconds)

    /** Whether it is known what the other end's work does to it. */
    val compared: Boolean get() = minOf(alone.size, beside.size) >= SOME

    /** How many times as long it takes beside the other end's work; 1 if hardly longer. */
    val slowdown: Double
        get() {
            val number = minOf(alone.size, beside.size)
            val least = if (number < FEW) PLAIN else SHARED
            return if (number < SOME || beside.typical < least * alone.typical) 1.0 else beside.typical / alone.typical
        }

    /** What it typically takes beside the other end's work; 0 before a sample of that. */
    val besideS: Double get() = beside.typical

    /** And with the other end idle. */
    val aloneS: Double get() = alone.typical

    /**
     * Samples alone are what is wanted to tell the slowdown (8.2): of those beside there are some, though not
     * many, and fewer alone: too few to compare, or the two differ by as much as only many would tell.
     */
    val lacks: Boolean
        get() {
            if (beside.size !in maxOf(SOME, alone.size + 1)..FEW) return false
            val slower = if (alone.size < SOME) SHARED else beside.typical / alone.typical
            return slower >= SHARED && slower < PLAIN
        }

    /** The mean with the other end at work, or idle; from the other kind where too few came. */
    fun meanS(beside: Boolean, slowdown: Double): Double {
        if (slowdown == 1.0) return mean
        val apart = if (beside) this.beside else alone
        if (apart.size >= FEW) return apart.mean
        return if (beside) mean * slowdown else mean / slowdown
    }

    private companion object {
        const val SHARED = 1.25 // times as long as alone, from which on both ends are taken to share a machine
        const val PLAIN = 1.6 // and where there are fewer than `FEW` samples of each, but `SOME`
    }
}
