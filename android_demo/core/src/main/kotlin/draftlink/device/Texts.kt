package draftlink.device

import draftlink.text.Pieces
import draftlink.text.Tokenizer
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.transformWhile

/**
 * The text of these tokens behind a [prompt], in pieces that never have to be taken back. It ends before
 * the first of the [stops], and so does what is written: nothing is asked of the base station behind it.
 */
fun Flow<Token>.texts(tokenizer: Tokenizer, prompt: List<Int>, stops: List<String> = emptyList()): Flow<String> = flow {
    val pieces = Pieces(tokenizer, prompt, stops)
    val said = transformWhile { token ->
        val piece = pieces.push(token.id)
        if (piece.isNotEmpty()) emit(piece)
        !pieces.stopped
    }
    said.collect { emit(it) }
    val rest = pieces.finish()
    if (rest.isNotEmpty()) emit(rest)
}
