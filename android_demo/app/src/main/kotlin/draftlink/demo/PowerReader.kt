package draftlink.demo

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import draftlink.app.Power

/** How charged and how hot the phone is. */
class PowerReader(private val context: Context) {
    fun now(): Power {
        // What was said last stays: nobody has to be registered for it.
        val said = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return Power(thermal = thermal())
        val level = said.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
        val whole = said.getIntExtra(BatteryManager.EXTRA_SCALE, -1)
        val tenths = said.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Int.MIN_VALUE)
        return Power(
            level = if (level >= 0 && whole > 0) 100 * level / whole else 100,
            charging = said.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0,
            celsius = if (tenths == Int.MIN_VALUE) null else tenths / 10.0,
            thermal = thermal(),
        )
    }

    private fun thermal(): Int =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) 0 else context.getSystemService(PowerManager::class.java).currentThermalStatus
}
