package draftlink.demo

import android.content.Context
import android.graphics.Typeface
import android.text.SpannableStringBuilder
import android.text.Spanned
import android.text.style.ForegroundColorSpan
import android.text.style.StyleSpan
import android.text.style.UnderlineSpan
import draftlink.app.Said
import draftlink.device.Who
import draftlink.text.Speaker

/** A chat's lines as text: each stretch in the colour of who wrote it, and told apart without colours, too. */
class ChatText(private val context: Context) {
    fun of(lines: List<Said>): CharSequence {
        val text = SpannableStringBuilder()
        for (line in lines) {
            if (text.isNotEmpty()) text.append("\n\n")
            val name = context.getString(if (line.speaker == Speaker.USER) R.string.you else R.string.answer)
            text.append("$name: ", StyleSpan(Typeface.BOLD), Spanned.SPAN_EXCLUSIVE_EXCLUSIVE)
            for (piece in line.pieces) add(text, piece.text, piece.who)
        }
        return text
    }

    /** What a screen reader says: who wrote a word would only be noise, but not that it may go again. */
    fun described(lines: List<Said>): CharSequence = lines.joinToString("\n") { line ->
        val name = context.getString(if (line.speaker == Speaker.USER) R.string.you else R.string.answer)
        val (pale, certain) = line.pieces.partition { it.who == Who.PROVISIONAL }
        val more = if (pale.isEmpty()) "" else " ${context.getString(R.string.not_certain)} ${pale.joinToString("") { it.text }}"
        "$name: ${certain.joinToString("") { it.text }}$more"
    }

    /** The words of the legend, each as what it stands for is shown. */
    fun legend(): CharSequence {
        val text = SpannableStringBuilder()
        context.getString(R.string.legend).split(" · ").zip(Who.entries).forEach { (word, who) ->
            if (text.isNotEmpty()) text.append(" · ")
            add(text, word, who)
        }
        return text
    }

    private fun add(text: SpannableStringBuilder, words: String, who: Who?) {
        val start = text.length
        text.append(words)
        val colour = when (who) {
            null -> return
            Who.DRAFTED -> R.color.drafted
            Who.CORRECTED -> R.color.corrected
            Who.WRITTEN -> R.color.written
            Who.PROVISIONAL -> R.color.provisional
        }
        val spans = ArrayList<Any>()
        spans += ForegroundColorSpan(context.getColor(colour))
        if (who == Who.CORRECTED) spans += UnderlineSpan()
        if (who == Who.PROVISIONAL) spans += StyleSpan(Typeface.ITALIC)
        for (span in spans) text.setSpan(span, start, text.length, Spanned.SPAN_EXCLUSIVE_EXCLUSIVE)
    }
}
