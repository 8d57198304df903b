package draftlink.model

import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtProvider
import ai.onnxruntime.OrtSession

/** ONNX Runtime's execution providers that a phone may have, by the name that Python's client gives them. */
enum class Provider(val said: String, private val own: OrtProvider) {
    CPU("cpu", OrtProvider.CPU),
    XNNPACK("xnnpack", OrtProvider.XNNPACK),
    NNAPI("nnapi", OrtProvider.NNAPI),
    ;

    /** Throws [BundleException] where this onnxruntime does not have it: nothing else is taken without a word. */
    internal fun add(options: OrtSession.SessionOptions, threads: Int) {
        if (this !in available()) throw BundleException("this onnxruntime has no $said, but ${available().joinToString { it.said }}")
        when (this) {
            CPU -> Unit // it is there in any case
            XNNPACK -> options.addXnnpack(mapOf("intra_op_num_threads" to threads.toString()))
            NNAPI -> options.addNnapi()
        }
    }

    companion object {
        /** What this onnxruntime has. */
        fun available(): Set<Provider> {
            val own = OrtEnvironment.getAvailableProviders()
            return entries.filter { it.own in own }.toSet()
        }
    }
}
